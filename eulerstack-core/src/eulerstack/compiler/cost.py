"""What a model costs: parameters, FLOPs and cache bytes, exact and without torch.

Every primitive knows its own price; this file adds them up. Parameters are those of the built module, scalar for
scalar. FLOPs count a multiply-add as 2 and leave out what is not a matrix product or an attention score: norms,
activations, softmaxes, positions, the embedding's look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from eulerstack.compiler.declared import evaluations_of, is_cached
from eulerstack.hf.slots import WIDTH_TAPS, projection_slots
from eulerstack.ir.dims import dims_of
from eulerstack.ir.head_layers import head_layers_of
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.types import IntegratorIR, LayerIR, ModelIR, ParallelIR, PrimitiveIR
from eulerstack.plugins import Cost, Dims
from eulerstack.plugins.asking import ask
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.primitive import CacheLayer, Kind, Params
from eulerstack.schema.sizes import dims_at_width

# A position is an int32.
POSITION_BYTES = 4
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class LayerCost:
    """The price of one layer, by part; `memory` costs nothing where there is none.

    `norms` holds one Cost for each norm of the layer, `held` one for each mixer that its mixer holds; `mixer` is then
    the price of the rest of it. `around` is what is wrapped around the layer. One pass evaluates the layer
    `evaluations` times, each time at its FLOPs and with a cache of its own.

    Where only the share `capacity` of the tokens passes through the layer, `gate` is the price of finding out which,
    paid for all of them; the parts are priced as if each token came. The layer's price is then that of a token on
    average, if as many are chosen as the share says, which holds exactly while training by `top_k`.
    """

    mixer: Cost
    ffn: Cost
    norms: tuple[Cost, ...]
    residual: Cost
    held: tuple[Cost, ...] = ()
    gate: Cost | None = None
    capacity: float = 1.0
    around: tuple[Cost, ...] = ()
    memory: Cost = Cost()
    evaluations: int = 1

    def parts(self) -> Iterator[Cost]:
        """Every part but the gate."""
        yield from (self.mixer, *self.held, self.ffn, *self.norms, self.residual, self.memory, *self.around)

    @property
    def slots(self) -> tuple[Cost, ...]:
        """The prices of the mixers that own the layer's cache slots, in their order."""
        return self.held or (self.mixer,)

    @property
    def params(self) -> int:
        """Parameters of the layer."""
        return self.total(lambda cost, share: cost.params)

    @property
    def active(self) -> int:
        """Parameters of the layer that one token touches."""
        return self.total(lambda cost, share: round(cost.active * share))

    def total(self, price: Callable[[Cost, float], int]) -> int:
        """The sum of `price` over the parts, each with the share of the tokens that come to it."""
        gate = 0 if self.gate is None else price(self.gate, 1.0)
        return gate + sum(price(part, self.capacity) for part in self.parts())


@dataclass(frozen=True)
class ModelCost:
    """The price of a whole model.

    embedding   parameters of the token table, vocab_size · d_model
    positions   the position primitive's price (a learned table has max_seq_len · d_model parameters)
    layers      one LayerCost a layer, in order
    stream_ends  one Cost for each run of layers with several residual streams: what joins these into one
    stages      for each stage that holds layers what it costs beside these: its integrator, or its merge
    final_norm  parameters of the norm before the head
    drafts      the price of the head's own layers, which take no part in computing the logits; None where it has none
    head        the head's price, that of `lm_head` included; 0 parameters when it has none beside the embedding's table
    cached      whether it decodes from a cache; if not, every token is decoded from the whole sequence
    """

    embedding: int
    positions: Cost
    layers: tuple[LayerCost, ...] = field(repr=False)
    final_norm: int
    head: Cost
    stream_ends: tuple[Cost, ...] = ()
    stages: tuple[tuple[Cost, ...], ...] = ()
    cached: bool = True
    drafts: ModelCost | None = None

    @property
    def total(self) -> int:
        """All parameters of the model; a table shared by embedding and head counts once."""
        drafts = 0 if self.drafts is None else self.drafts.total
        return self._sum(lambda cost, share: cost.params) + self.embedding + self.final_norm + drafts

    @property
    def safe(self) -> int:
        """Parameters of norms and routers, which `dtype_policy: layered_safe` keeps in float32."""
        parts = self._sum(lambda cost, share: cost.safe_params) + (0 if self.drafts is None else self.drafts.safe)
        return (
            parts + self.final_norm + sum(norm.params - norm.safe_params for each in self.layers for norm in each.norms)
        )

    def weight_bytes(self, dtype: str, policy: str) -> int:
        """Bytes of all weights in `dtype`, under a `dtype_policy`."""
        safe = self.safe if policy == "layered_safe" else 0
        return ELEMENT_BYTES[dtype] * (self.total - safe) + ELEMENT_BYTES["float32"] * safe

    @property
    def active(self) -> int:
        """Parameters that one token touches on its way to the logits. Tables of embeddings count whole, as published
        figures have it."""
        return self._sum(lambda cost, share: round(cost.active * share)) + self.embedding + self.final_norm

    def cache_bytes(self, context: int, batch: int = 1) -> int:
        """Bytes of the decoding cache once `context` tokens of each of `batch` sequences have been processed."""

        def stored(cost: Cost, share: float) -> int:
            if cost.state_bytes is not None:
                return cost.state_bytes(coming(context, share))
            tokens = share * context if cost.state_window is None else min(share * context, cost.state_window)
            return cost.state_bytes_fixed + round(cost.state_bytes_per_token * tokens)

        return batch * self._sum(stored, every_evaluation=True) if self.cached else 0

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes by which a sequence's cache grows with a token; under a window as long as it is not full."""
        if not self.cached:
            return 0
        return self._sum(lambda cost, share: round(share * cost.state_bytes_per_token), every_evaluation=True)

    @property
    def cache_bytes_fixed(self) -> int:
        """Bytes of a sequence's cache that do not grow with its tokens."""
        if not self.cached:
            return 0
        return self._sum(lambda cost, share: cost.state_bytes_fixed, every_evaluation=True)

    def flops_per_token(self, context: int, phase: Literal["decode", "prefill"] = "decode") -> float:
        """FLOPs of one token's forward pass, head included.

        decode: of the token that is the last of `context` tokens, the earlier ones being cached, or computed again
        where there is no cache; the head is applied to this token alone.
        prefill: the mean over all tokens of a sequence of `context` tokens processed at once, each of which sees
        itself and the earlier ones; a training step costs three times this (forward, and twice that backward).
        """
        if phase == "decode":
            if not self.cached:
                return replace(self, head=Cost()).prefill_flops(context) + _decoded(self.head, context)
            return self._sum(
                lambda cost, share: round(share * _decoded(cost, coming(context, share))), every_evaluation=True
            )
        return self.prefill_flops(context) / context

    def prefill_flops(self, context: int) -> int:
        """FLOPs of the forward pass over a sequence of `context` tokens, the head applied to every token."""

        def flops(cost: Cost, share: float) -> int:
            tokens = coming(context, share)
            if cost.prefill_flops is not None:
                return cost.prefill_flops(tokens)
            return cost.flops_per_token * tokens + cost.flops_per_token_per_context * _seen_in_all(cost, tokens)

        return self._sum(flops, every_evaluation=True)

    def _sum(self, price: Callable[[Cost, float], int], every_evaluation: bool = False) -> int:
        """`price` of every part of the model, added up; equal layers are looked at once."""
        counts = Counter(map(id, self.layers))
        total = sum(
            price(part, 1.0)
            for part in (
                self.positions,
                self.head,
                *self.stream_ends,
                *(cost for stage in self.stages for cost in stage),
            )
        )
        for layer in {id(layer): layer for layer in self.layers}.values():
            times = counts[id(layer)] * (layer.evaluations if every_evaluation else 1)
            total += times * layer.total(price)
        return total


def coming(tokens: int, share: float) -> int:
    """How many of so many tokens come to a layer, as its gate rounds them while training."""
    return max(min(tokens, 1), int(tokens * share + 0.5))


def _decoded(cost: Cost, context: int) -> int:
    """FLOPs of decoding the last of `context` tokens."""
    if cost.decode_flops is not None:
        return cost.decode_flops(context)
    return cost.flops_per_token + cost.decode_flops_per_context * _seen(cost, context)


def _seen(cost: Cost, context: int) -> int:
    """Tokens that the last of `context` tokens attends to. A window sees the tokens it keeps, and the current one."""
    return -(-_span(cost, context) // cost.context_stride)


def _span(cost: Cost, context: int) -> int:
    """Tokens from the farthest that the last of `context` tokens may see to that token itself."""
    return context if cost.state_window is None else min(context, cost.state_window + 1)


def _seen_in_all(cost: Cost, context: int) -> int:
    """The sum over t = 1 … context of the tokens that token t attends to."""
    span, stride = _span(cost, context), cost.context_stride
    # The first `span` tokens see 1, …, 1, 2, …, 2, 3, … tokens, each number `stride` times over.
    whole, rest = divmod(span, stride)
    growing = stride * whole * (whole + 1) // 2 + rest * (whole + 1)
    return growing + _seen(cost, context) * (context - span)


def model_cost(ir: ModelIR, registry: Registry | None = None, element_bytes: int | None = None) -> ModelCost:
    """The price of a model. A cache element has `element_bytes` bytes, by default those of the model's dtype."""
    registry = get_registry() if registry is None else registry
    size = ELEMENT_BYTES[ir.model["dtype"]] if element_bytes is None else element_bytes
    dims = dims_of(ir)
    probed = bool(ir.training_hints["differentiation_objectives"]["usage_probe_coef"])
    pricer = _Pricer(registry, dims, size, probed)
    known: dict[tuple[int, int], LayerCost] = {}
    by_value: dict[tuple[LayerIR, int], LayerCost] = {}
    layers: list[LayerCost] = []
    others = _others_of(ir, registry, size)
    for stage, run in groupby(ir.stages):
        evaluations = evaluations_of(registry, stage)
        for layer in stage.layers:
            if (id(layer), evaluations) not in known:
                if (layer, evaluations) not in by_value:
                    by_value[layer, evaluations] = replace(pricer.layer(layer), evaluations=evaluations)
                known[id(layer), evaluations] = by_value[layer, evaluations]
        layers += [known[id(layer), evaluations] for layer in stage.layers] * sum(1 for _ in run)
    return ModelCost(
        embedding=dims.vocab_size * dims.d_model,
        positions=pricer.price("position", ir.position),
        layers=_with_others(layers, others),
        final_norm=0 if ir.final_norm is None else pricer.price("norm", ir.final_norm).params,
        head=pricer.head(ir),
        stream_ends=tuple(pricer.stream_ends([stage if isinstance(stage, LayerIR) else None for stage in ir.stages])),
        stages=tuple(tuple(pricer.stage(stage)) for stage in ir.stages if not isinstance(stage, LayerIR)),
        cached=all(is_cached(registry, stage) for stage in ir.stages),
        drafts=pricer.drafts(ir),
    )


def _others_of(ir: ModelIR, registry: Registry, element_bytes: int) -> dict[int, tuple[Cost, ...]]:
    """By the index of a layer: what its linear layers that are computed by other means cost, and what those cost less
    that its primitives have counted."""
    found: dict[int, tuple[Cost, ...]] = {}
    for each in replaced_linears(ir, registry):
        dense = each.dense_cost
        less = Cost(params=-dense.params, flops_per_token=-dense.flops_per_token)
        found[each.linear.layer] = (*found.get(each.linear.layer, ()), less, each.cost(registry, element_bytes))
    return found


def _with_others(layers: Sequence[LayerCost], others: Mapping[int, tuple[Cost, ...]]) -> tuple[LayerCost, ...]:
    """The prices of layers with such linear layers; equal layers stay one object."""
    known: dict[tuple[int, tuple[tuple[int, ...], ...]], LayerCost] = {}
    priced = []
    for index, layer in enumerate(layers):
        extra = others.get(index)
        if extra is None:
            priced.append(layer)
            continue
        key = (id(layer), tuple((each.params, each.flops_per_token, id(each.prefill_flops)) for each in extra))
        if key not in known:
            known[key] = replace(layer, around=(*layer.around, *extra))
        priced.append(known[key])
    return tuple(priced)


def count_parameters(ir: ModelIR, registry: Registry | None = None) -> int:
    """The exact number of parameters of the model that `ir` describes."""
    return model_cost(ir, registry).total


@dataclass(frozen=True)
class _Pricer:
    """Asks primitives for their prices."""

    registry: Registry
    dims: Dims
    element_bytes: int
    # Whether a probe guesses which unit made a routed output.
    probed: bool

    def price(self, kind: Kind, node: PrimitiveIR, params: Params | None = None) -> Cost:
        """The price of one primitive, with other parameters than its node's where these are not all."""
        primitive = primitive_of(self.registry, kind, node.type)
        params = node.params if params is None else params
        return ask(self.registry, primitive, Cost, primitive.cost, self.dims, params, self.element_bytes)

    def head(self, ir: ModelIR) -> Cost:
        """The price of the head and of `lm_head`, where the head projects with it and it is not the embedding's."""
        cost = self.price("head", ir.head)
        head = primitive_of(self.registry, "head", ir.head.type)
        uses = ask(self.registry, head, bool, head.lm_head, ir.head.params)
        matrix = self.dims.vocab_size * self.dims.d_model if uses and not ir.embedding["tie_word_embeddings"] else 0
        return replace(cost, params=cost.params + matrix, active_params=cost.active + matrix)

    def drafts(self, ir: ModelIR) -> ModelCost | None:
        """The price of the layers that a head has of its own."""
        own = head_layers_of(self.registry, self.dims, ir.head)
        if own is None or ir.head_layer is None:
            return None
        position = primitive_of(self.registry, "position", ir.position.type)
        layers = (ir.head_layer,) * own.layers
        norm = self.price("norm", ir.head_layer.norm).params
        return ModelCost(
            embedding=0,
            # A bias on scores is computed in every stack of layers, positions of embeddings are not added again.
            positions=_times(own.modules, self.price("position", ir.position))
            if position.place == "scores"
            else Cost(),
            layers=(self.layer(ir.head_layer),) * (own.layers * own.modules),
            final_norm=own.norms * own.modules * norm,
            head=_times(own.modules, own.cost),
            stream_ends=tuple(self.stream_ends(layers)) * own.modules,
        )

    def layer(self, layer: LayerIR) -> LayerCost:
        """The price of one layer."""
        gate = None if layer.depth_gating is None else self.gate()
        if layer.shape_change is None:
            return replace(self.at_width(layer), gate=gate)
        inner = replace(self, dims=dims_at_width(self.dims, layer.shape_change["d_out"])).at_width(layer)
        return replace(inner, gate=gate, around=(*inner.around, self.projections(layer.shape_change)))

    def at_width(self, layer: LayerIR) -> LayerCost:
        """The price of one layer but for its gate and what changes its width; `dims` are those at its width."""
        residual = primitive_of(self.registry, "residual", layer.residual.type)
        has_ffn = not primitive_of(self.registry, "ffn", layer.ffn.type).absent
        slots = ask(self.registry, residual, tuple[str, ...], residual.norm_slots, layer.norm.position, has_ffn)
        return LayerCost(
            self.probed_price("mixer", layer.mixer),
            self.probed_price("ffn", layer.ffn),
            (self.price("norm", layer.norm),) * len(slots),
            _times(2 if residual.per_branch and has_ffn else 1, self.price("residual", layer.residual)),
            tuple(self.price("mixer", each) for each in layer.mixer.held.values()),
            capacity=1.0 if layer.depth_gating is None else layer.depth_gating["capacity"],
            around=() if layer.depth_gating is None else self.positions_of_gated(layer),
            memory=Cost() if layer.memory is None else self.price("memory", layer.memory),
        )

    def probed_price(self, kind: Kind, node: PrimitiveIR) -> Cost:
        """The price of a primitive and of the probe on its units, which no token touches outside of training."""
        cost = self.price(kind, node)
        primitive = primitive_of(self.registry, kind, node.type)
        units = ask(self.registry, primitive, int, primitive.routed_units, node.params) if self.probed else 0
        if units < 2:
            return cost
        return replace(cost, params=cost.params + units * (self.dims.d_model + 1), active_params=cost.active)

    def stage(self, stage: IntegratorIR | ParallelIR) -> Iterator[Cost]:
        """What a stage that holds layers costs beside them, in one pass."""
        if isinstance(stage, ParallelIR):
            yield self.price("merge", stage.merge, stage.merge_params)
            for stream in stage.streams:
                yield from self.stream_ends(stream.layers)
            return
        yield self.price("integrator", stage.integrator)
        evaluations = evaluations_of(self.registry, stage)
        for layer in stage.layers:
            for ends in self.stream_ends([layer]):
                yield replace(ends, flops_per_token=evaluations * ends.flops_per_token)

    def stream_ends(self, layers: Sequence[LayerIR | None]) -> Iterator[Cost]:
        """The price of the ends of every run of layers with several streams; its last layer's residual knows it."""
        kinds = {id(layer): self._streams(layer) for layer in {id(layer): layer for layer in layers}.values()}
        for kind, run in groupby(layers, key=lambda layer: kinds[id(layer)]):
            if kind is not None:
                last = [layer for layer in run if layer is not None][-1]
                residual = primitive_of(self.registry, "residual", last.residual.type)
                price, params = residual.stream_ends_cost, last.residual.params
                yield ask(self.registry, residual, Cost, price, self.dims, params, self.element_bytes)

    def _streams(self, layer: LayerIR | None) -> tuple[str, int] | None:
        """What layers of one run have in common; None for a layer with one stream, and for what is no layer."""
        if layer is None:
            return None
        residual = primitive_of(self.registry, "residual", layer.residual.type)
        count = ask(self.registry, residual, int, residual.streams, layer.residual.params)
        return (layer.residual.type, count) if count > 1 else None

    def positions_of_gated(self, layer: LayerIR) -> tuple[Cost, ...]:
        """The price of remembering where the processed tokens stood, which scores with a bias need."""
        if primitive_of(self.registry, "position", self.dims.positional).place != "scores":
            return ()
        prices = []
        for node in layer.slot_mixers:
            mixer = primitive_of(self.registry, "mixer", node.type)
            if ask(self.registry, mixer, CacheLayer, mixer.cache, node.params).layer_type != "eulerstack_state":
                window = self.price("mixer", node).state_window
                prices.append(Cost(state_bytes_per_token=POSITION_BYTES, state_window=window))
        return tuple(prices)

    def projections(self, shape_change: Mapping[str, Any]) -> Cost:
        """The price of projecting the stream to a layer's width and back."""
        width, inner = self.dims.d_model, shape_change["d_out"]
        params = 2 * width * inner * (WIDTH_TAPS if shape_change["projection"] == "conv1d" else 1)
        if shape_change["projection"] == "mlp":
            params += 2 * inner**2
        kept = projection_slots(shape_change) * (WIDTH_TAPS - 1) * (width + inner) * self.element_bytes
        return Cost(params=params, flops_per_token=2 * params, state_bytes_fixed=kept)

    def gate(self) -> Cost:
        """The price of a depth gate: a product with one vector for each token."""
        return Cost(params=self.dims.d_model, flops_per_token=2 * self.dims.d_model, safe_params=self.dims.d_model)


def _times(count: int, cost: Cost) -> Cost:
    """`count` times a price that keeps no state."""
    if count == 1:
        return cost
    return Cost(
        params=count * cost.params,
        active_params=count * cost.active,
        flops_per_token=count * cost.flops_per_token,
        safe_params=count * cost.safe_params,
    )
