"""A compiled model computes what the naive implementations compute, for any spec."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import HealthCheck, assume, given, settings  # noqa: E402

from eulerstack.compiler.compile import compile_to_hf_model  # noqa: E402
from eulerstack.hf.slots import projection_slots  # noqa: E402
from eulerstack.ir import LayerIR, ModelIR, PrimitiveIR, normalize_to_ir  # noqa: E402
from eulerstack.ir.dims import layer_sizes  # noqa: E402
from eulerstack_mixers.reference.attention import attention  # noqa: E402
from eulerstack_mixers.reference.depth_gating import gated  # noqa: E402
from eulerstack_mixers.reference.ffn import gated_mlp, mlp  # noqa: E402
from eulerstack_mixers.reference.heads import causal_lm  # noqa: E402
from eulerstack_mixers.reference.hyper_connection import hyper_connection, join_streams  # noqa: E402
from eulerstack_mixers.reference.latent_attention import latent_attention  # noqa: E402
from eulerstack_mixers.reference.norms import layernorm, rmsnorm  # noqa: E402
from eulerstack_mixers.reference.positions import frequencies, learned_positions  # noqa: E402
from eulerstack_mixers.reference.residuals import parallel, sequential  # noqa: E402
from eulerstack_mixers.reference.width import at_width  # noqa: E402
from tests.ir.strategies import Data, specs  # noqa: E402

Weights = dict[str, Any]


def below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(f"{prefix}."): value for name, value in weights.items() if name.startswith(f"{prefix}.")}


def norm_of(node: PrimitiveIR, weights: Weights) -> Callable[[Any], Any]:
    if node.type == "layernorm":
        return partial(layernorm, weight=weights["weight"], bias=weights.get("bias"), eps=node.params["eps"])
    return partial(rmsnorm, weight=weights["weight"], **node.params)


def layer_of(ir: ModelIR, layer: LayerIR, weights: Weights, hidden_states: Any) -> Any:
    positions = list(range(hidden_states.shape[0]))
    if layer.depth_gating is None:
        return ungated(ir, layer, weights, hidden_states, positions)

    def body(states: Any, places: list[int]) -> Any:
        return ungated(ir, layer, weights, states, places) - states

    return gated(hidden_states, weights["depth_gate.router.weight"][0], body, training=False, **layer.depth_gating)[0]


def ungated(ir: ModelIR, layer: LayerIR, weights: Weights, hidden_states: Any, positions: list[int]) -> Any:
    if layer.shape_change is None:
        return at_its_width(ir, layer, weights, hidden_states, positions)
    projections, inner = below(weights, "width_change"), replace(ir, model=layer_sizes(ir, layer))
    return at_width(
        hidden_states,
        projections,
        layer.shape_change["projection"],
        lambda states: at_its_width(inner, layer, weights, states, positions),
    )


def at_its_width(ir: ModelIR, layer: LayerIR, weights: Weights, hidden_states: Any, positions: list[int]) -> Any:
    heads = {"n_heads": ir.model["n_heads"], "n_kv_heads": ir.model["n_kv_heads"], "norm_eps": ir.model["norm_eps"]}
    alibi = ir.position.type == "alibi"
    weights_of_mixer, params = below(weights, "mixer"), layer.mixer.params

    def mixer(states: Any) -> Any:
        if params["latent_dim"] is None:
            return attention(states, weights_of_mixer, params, alibi=alibi, positions=positions, **heads)
        sizes = {"n_heads": ir.model["n_heads"], "head_dim": ir.model["head_dim"]}
        return latent_attention(states, weights_of_mixer, params, alibi=alibi, positions=positions, **sizes)

    def ffn(states: Any) -> Any:
        block = {"mlp": mlp, "gated_mlp": gated_mlp}[layer.ffn.type]
        return block(states, below(weights, "ffn"), layer.ffn.params["activation"])

    slots = {name.split(".")[0] for name in weights if name.split(".")[0].endswith("norm")}
    norms = {slot: norm_of(layer.norm, below(weights, slot)) for slot in slots}
    scaling = layer.residual.params["scaling"] * ir.model["residual_multiplier"]
    arguments = (hidden_states, mixer, ffn, norms, layer.norm.position)
    if streams_of(layer) > 1:
        own = below(weights, "residual")
        return hyper_connection(*arguments, own, layer.residual.params, ir.model["norm_eps"], scaling)
    return (parallel if layer.residual.type == "parallel" else sequential)(*arguments, scaling)


def streams_of(layer: LayerIR) -> int:
    return int(layer.residual.params.get("expand", 1))


def stack_of(ir: ModelIR, weights: Weights, hidden_states: Any) -> Any:
    """All layers, with streams made and joined where their number changes."""
    run = -1
    for index, layer in enumerate(ir.layers):
        before = streams_of(ir.layers[index - 1]) if index else 1
        if (count := streams_of(layer)) != before:
            if before > 1:
                hidden_states = joined(ir, weights, hidden_states, run, ir.layers[index - 1])
            if count > 1:
                hidden_states, run = torch.stack([hidden_states] * count, 1), run + 1
        hidden_states = layer_of(ir, layer, below(weights, f"model.layers.{index}"), hidden_states)
    return joined(ir, weights, hidden_states, run, ir.layers[-1]) if streams_of(ir.layers[-1]) > 1 else hidden_states


def joined(ir: ModelIR, weights: Weights, streams: Any, run: int, last: LayerIR) -> Any:
    return join_streams(streams, below(weights, f"model.stream_ends.{run}"), last.residual.params, ir.model["norm_eps"])


def reference_logits(ir: ModelIR, weights: Weights, tokens: list[int]) -> Any:
    scale = ir.model["d_model"] ** 0.5 if ir.embedding["scale"] == "sqrt_d_model" else ir.embedding["scale"]
    hidden_states = weights["model.embed_tokens.weight"][tokens] * scale
    if ir.position.type == "learned":
        places = list(range(len(tokens)))
        hidden_states = learned_positions(hidden_states, weights["model.position.weight"], places)
    hidden_states = stack_of(ir, weights, hidden_states)
    if ir.final_norm is not None:
        hidden_states = norm_of(ir.final_norm, below(weights, "model.norm"))(hidden_states)
    scaling = ir.training_hints["scaling"]
    if scaling["parametrization"] == "mup":
        hidden_states = hidden_states * scaling["base_width"] / ir.model["d_model"]
    head = {word: ir.head.params[word] for word in ("logit_scale", "logit_softcap")}
    return causal_lm(hidden_states, weights["lm_head.weight"], **head)


class ExactRotation(torch.nn.Module):
    """Cosines and sines of the naive implementation, in float64, as the model's own module hands them out.

    The model turns in float32, as transformers does. Its tables are compared with these to that accuracy, and replaced
    by them, so that everything else can be compared at the accuracy of float64.
    """

    def __init__(self, width: int, rope: Data):
        super().__init__()
        self.width, self.rope = width, rope

    def forward(self, hidden_states: Any, position_ids: Any) -> tuple[Any, Any]:
        turns, factor = frequencies(self.width, self.rope, int(position_ids.max()) + 1)
        angles = position_ids[..., None].double() * torch.tensor(turns, dtype=torch.float64)
        cos, sin = factor * angles.cos(), factor * angles.sin()
        if self.rope["interleaved"]:
            return cos.repeat_interleave(2, -1), torch.stack((-sin, sin), -1).flatten(-2)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def with_exact_rotation(model: Any, ir: ModelIR, tokens: list[int]) -> None:
    """Replaces every rotary module of a model after holding its tables against the naive implementation's."""
    base, place = model.model, torch.arange(len(tokens))[None]
    owners = [layer for layer in ir.layers for _ in range(1 + projection_slots(layer.shape_change))]
    for layer, name in zip(owners, base.rope_of_slot, strict=True):
        if name is None or isinstance(base.rotary_embs[name], ExactRotation):
            continue
        params = layer.mixer.params
        exact = ExactRotation(params["rope_head_dim"] or layer_sizes(ir, layer)["head_dim"], params["rope"])
        for own, expected in zip(base.rotary_embs[name](torch.zeros(1), place), exact(None, place), strict=True):
            torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-5)
        base.rotary_embs[name] = exact


@given(specs())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_logits_of_any_spec_are_those_of_the_naive_implementation(spec: Data) -> None:
    spec["model"]["dtype"] = "float32"
    ir = normalize_to_ir(spec)
    assume(ir.model["max_seq_len"] >= 6)
    model = compile_to_hf_model(ir).double().eval()
    tokens = [3, 1, 4, 1, 5, 9]
    with_exact_rotation(model, ir, tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
        actual = model(torch.tensor([tokens])).logits[0]
        expected = reference_logits(ir, model.state_dict(), tokens)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))
