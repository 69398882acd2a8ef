"""A model in plain data: what `explain` prints, and what its `--json` and `presets show --json` give to programs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from eulerstack.dsl.paths import is_reserved
from eulerstack.schema.held import held_mappings
from eulerstack.schema.sections import DEFAULT_NORM_POSITION, DEFAULT_TYPES, shared_params

if TYPE_CHECKING:
    from eulerstack.compiler.cost import ModelCost
    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import LayerIR, ModelIR, Stage
    from eulerstack.plugins.manager import Registry

PARTS = ("mixer", "ffn", "norm", "residual")
OPTIONAL_PARTS = ("memory",)


def describe(spec: Spec, ir: ModelIR, context: int | None = None, batch: int = 1) -> dict[str, Any]:
    """Sizes, templates, schedule, layers and costs of one model.

    Costs are those at a context of `context` tokens (default: the model's max_seq_len), cache bytes those of `batch`
    sequences of that length.

    `params` of a primitive are those that the spec gives and that differ from the defaults. Layers are run-length
    coded: a group is a run of equal layers, and its costs are those of one of them, all its evaluations together. Of a
    layer inside a stage, `stage` is the index and the word of that stage, and the name of its stream; `stages` holds
    what such stages cost beside their layers.
    """
    from eulerstack.compiler.cost import model_cost
    from eulerstack.compiler.phases import phase_facts
    from eulerstack.compiler.tissue import tissue_map
    from eulerstack.compiler.training_cost import training_cost
    from eulerstack.ir.types import thaw
    from eulerstack.plugins.manager import get_registry
    from eulerstack.schema.training import compatibility, training_hints

    registry = get_registry()
    cost = model_cost(ir, registry)
    length = ir.model["max_seq_len"] if context is None else context
    training = training_cost(ir, cost, length)
    phases = phase_facts(ir)
    head = ir.head.params.get("tie_weights", ir.embedding["tie_word_embeddings"])
    return {
        "model": thaw(ir.model),
        "positional": _primitive("position", ir.position.type, spec.get("embedding") or {}, registry),
        "templates": {
            name: {
                part: _part(part, template.get(part) or {}, registry)
                for part in (*PARTS, *(part for part in OPTIONAL_PARTS if part in template))
            }
            for name, template in spec["layer_templates"].items()
            if not is_reserved(name)
        },
        "schedule": [_entry(each, registry) for each in spec["layer_schedule"]],
        "total_layers": len(ir.layers),
        "head": _primitive("head", ir.head.type, spec.get("head") or {}, registry, hide=("tie_weights",))
        | {"tie_weights": head},
        "compile_target": ir.compatibility["compile_target"],
        "training": _changed(thaw(ir.training_hints), training_hints()),
        "compatibility": _changed(thaw(ir.compatibility), compatibility()),
        "tissue": tissue_map(ir),
        "phases": phases and {**phases, "cache_bytes": cost.cache_bytes(phases["longest_context"])},
        "extensions": thaw(ir.extensions),
        "params": {
            "total": cost.total,
            "active": cost.active,
            "embedding": cost.embedding,
            "target": ir.model["target_params"],
        },
        "weight_bytes": cost.weight_bytes(ir.model["dtype"], ir.compatibility["dtype_policy"]),
        "flops_per_token": cost.flops_per_token(length),
        "flops_per_prompt_token": cost.flops_per_token(length, "prefill"),
        "context": length,
        "batch": batch,
        "cache_bytes": _cache_bytes(cost, length, batch),
        "drafts": None if cost.drafts is None else _drafts(cost.drafts, length, batch),
        "training_cost": {
            "flops_per_token": training.flops_per_token,
            "weight_bytes": training.weights,
            "gradient_bytes": training.gradients,
            "optimizer_bytes": list(training.optimizer),
            "total_bytes": list(training.total),
        },
        "replaced_linears": _linears(ir, registry, length),
        "layers": _layers(ir, cost, length, batch),
        "stages": _stages(ir, cost, length, batch),
    }


def _linears(ir: ModelIR, registry: Registry, length: int) -> list[dict[str, Any]]:
    """What is computed by other means than a matrix: one item for each kind of replacement by each key.

    `params` and FLOPs are those of all its linear layers together, `dense_params` and `dense_flops_per_token` those of
    the matrices that they replace.
    """
    from eulerstack.compiler.cost import ELEMENT_BYTES, LayerCost, ModelCost
    from eulerstack.ir.linears import replaced_linears
    from eulerstack.ir.types import FrozenMapping, thaw
    from eulerstack.plugins.primitive import Cost

    groups: dict[Any, dict[str, Any]] = {}
    for each in replaced_linears(ir, registry):
        price = LayerCost(Cost(), Cost(), (), Cost(), around=(each.cost(registry, ELEMENT_BYTES[ir.model["dtype"]]),))
        alone = ModelCost(embedding=0, positions=Cost(), layers=(price,), final_norm=0, head=Cost())
        # What a layer is for changes neither its form nor its price.
        params = FrozenMapping({word: value for word, value in each.node.params.items() if word != "role"})
        empty = {"path": each.path, "type": each.node.type, "params": thaw(params), "modules": []}
        group = groups.setdefault((each.path, each.node.type, params), empty)
        group["modules"].append(each.linear.name)
        sums = {
            "total_params": price.params,
            "dense_params": each.dense_params,
            "flops_per_token": alone.flops_per_token(length),
            "flops_per_prompt_token": alone.flops_per_token(length, "prefill"),
            "dense_flops_per_token": each.dense_cost.flops_per_token,
        }
        for word, number in sums.items():
            group[word] = group.get(word, 0) + number
    return list(groups.values())


def _changed(words: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The words whose value is not the default."""
    from eulerstack.schema.defaults import complete_words

    defaults = complete_words(schema["properties"], {})
    return {word: value for word, value in words.items() if value != defaults.get(word)}


def _part(part: str, given: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    described = _primitive(part, given.get("type") or DEFAULT_TYPES[part], given, registry)
    if part == "norm":
        described["position"] = given.get("position", DEFAULT_NORM_POSITION)
    return described


def _primitive(
    kind: str, name: str, given: Mapping[str, Any], registry: Registry, hide: tuple[str, ...] = ()
) -> dict[str, Any]:
    primitive = registry.get(kind, name)
    words = {**shared_params(kind), **primitive.inline}
    written = {word: given[word] for word in words if word in given}
    if primitive.schema is not None:
        words |= primitive.schema.get("properties", {})
        written |= {word: value for word, value in (given.get(primitive.block_name) or {}).items() if word in words}
    missing = object()
    params = {
        word: value
        for word, value in written.items()
        if word not in hide and value != words[word].get("default", missing)
    }
    held = {
        str(path[-1]): _primitive(kind, each["type"], each, registry)
        for path, each in sorted(held_mappings(registry, kind, given), key=lambda held: str(held[0][-1]))
    }
    if primitive.holds is not None:
        params = {primitive.holds.word: held, **params}
    return {"type": name, "params": params}


def _entry(entry: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """An entry of the schedule; of a stage its type, its words and the template of its layers."""
    if "integrator" in entry:
        stage = entry["integrator"]
        return {"integrator": _primitive("integrator", stage["type"], stage, registry), "body": stage["body"]}
    if "parallel" in entry:
        merge = entry["merge"]
        streams = [
            {"stream": stream["stream"], "body": [_entry(run, registry) for run in stream["body"]]}
            for stream in entry["parallel"]
        ]
        return {"parallel": streams, "merge": _primitive("merge", merge["type"], merge, registry)}
    return {
        "template": entry["template"],
        "repeat": entry.get("repeat", 1),
        "override": entry.get("override") or {},
        "depth_gating": entry.get("depth_gating"),
    }


def _cache_bytes(cost: ModelCost, length: int, batch: int) -> dict[str, int]:
    return {
        "per_token": cost.cache_bytes_per_token,
        "fixed": cost.cache_bytes_fixed,
        "at_context": cost.cache_bytes(length, batch),
    }


def _drafts(cost: ModelCost, length: int, batch: int) -> dict[str, Any]:
    """The price of the head's own layers, which the logits do without: of drafting one token by each module."""
    return {
        "params": cost.total,
        "active": cost.active,
        "flops_per_token": cost.flops_per_token(length),
        "cache_bytes": _cache_bytes(cost, length, batch),
    }


def _layers(ir: ModelIR, cost: ModelCost, length: int, batch: int) -> list[dict[str, Any]]:
    from eulerstack.compiler.cost import ModelCost
    from eulerstack.ir.linears import replaced_linears
    from eulerstack.ir.types import thaw
    from eulerstack.plugins.primitive import Cost

    groups = []
    first = 0
    others: dict[int, list[Any]] = {}
    for each in replaced_linears(ir):
        others.setdefault(each.linear.layer, []).append((each.module.rpartition(".")[2], each.node))
    places = [place for index, stage in enumerate(ir.stages) for place in _places(index, stage)]
    runs = [(*place, tuple(others.get(index, ()))) for index, place in enumerate(places)]
    for (layer, stage, replaced), run in groupby(runs):
        count = sum(1 for _ in run)
        price = cost.layers[first]
        alone = ModelCost(embedding=0, positions=Cost(), layers=(price,), final_norm=0, head=Cost(), cached=cost.cached)
        groups.append(
            {
                "first": first,
                "last": first + count - 1,
                "template": layer.template,
                "stage": stage and dict(stage),
                "evaluations": price.evaluations,
                "mixer": layer.mixer.type,
                "ffn": layer.ffn.type,
                "norm": layer.norm.type,
                "residual": layer.residual.type,
                "depth_gating": thaw(layer.depth_gating),
                "memory": None if layer.memory is None else layer.memory.type,
                "replaced_linears": len(replaced),
                "params": price.params,
                "active_params": price.active,
                "flops_per_token": alone.flops_per_token(length),
                "flops_per_prompt_token": alone.flops_per_token(length, "prefill"),
                "cache_bytes_per_token": alone.cache_bytes(1) - alone.cache_bytes(0),
                "cache_bytes_fixed": alone.cache_bytes(0),
                "cache_bytes_at_context": alone.cache_bytes(length, batch),
            }
        )
        first += count
    return groups


def _places(index: int, stage: Stage) -> list[tuple[LayerIR, tuple[tuple[str, Any], ...] | None]]:
    """Every layer of a stage, with what is said of the stage; None where the layer is a stage of its own."""
    from eulerstack.ir.types import ParallelIR

    if isinstance(stage, ParallelIR):
        return [
            (layer, (("index", index), ("word", stage.word), ("stream", stream.name)))
            for stream in stage.streams
            for layer in stream.layers
        ]
    place = (("index", index), ("word", stage.word)) if stage.word else None
    return [(layer, place) for layer in stage.layers]


def _stages(ir: ModelIR, cost: ModelCost, length: int, batch: int) -> list[dict[str, Any]]:
    """What each stage that holds layers costs beside them; `first` and `last` are its layers."""
    from eulerstack.compiler.cost import ModelCost
    from eulerstack.ir.types import LayerIR, ParallelIR
    from eulerstack.plugins.primitive import Cost

    stages = []
    first, prices = 0, iter(cost.stages)
    for index, stage in enumerate(ir.stages):
        last = first + len(stage.layers) - 1
        if not isinstance(stage, LayerIR):
            own = next(prices)
            alone = ModelCost(embedding=0, positions=Cost(), layers=(), final_norm=0, head=Cost(), stages=(own,))
            stages.append(
                {
                    "index": index,
                    "word": stage.word,
                    "type": stage.merge.type if isinstance(stage, ParallelIR) else stage.integrator.type,
                    "first": first,
                    "last": last,
                    "params": alone.total,
                    "active_params": alone.active,
                    "flops_per_token": alone.flops_per_token(length),
                    "flops_per_prompt_token": alone.flops_per_token(length, "prefill"),
                    "cache_bytes_per_token": alone.cache_bytes_per_token,
                    "cache_bytes_fixed": alone.cache_bytes_fixed,
                    "cache_bytes_at_context": alone.cache_bytes(length, batch),
                }
            )
        first = last + 1
    return stages
