"""What exports, which have no declarations, must know of them: written into the architecture of `config.json`.

    class          of any node whose class depends on its parameters: its name
    features       of a mixer: the `Features` that differ from their defaults
    holds          of a mixer that holds others: the parameter under which they stand, nodes like it
    absent         of a feed-forward block that a layer does without: true
    routes         of a mixer or a feed-forward block that reports what is added to the loss of a training pass: true
    sizes          of a layer with a width of its own: d_model, head_dim and d_ff there
    norms          of a residual: the names of the norms that its layer holds
    residual_streams  of a residual with several streams: how many
    place          of a position that acts on embeddings or scores: which
    evaluations    of an integrator's stage: how often each of its layers is evaluated, where that is not once
    cached         of an integrator's stage that no cache serves: false; its layers then have one slot each
    slot           of a merge that has a cache slot: true
    lm_head        of a head that does without the matrix of that name: false
    layer_types    of a head with layers of its own: the kinds of their cache slots
    config_fields  of the whole: config.json's names for what primitives say
    one_graph      of the whole, where a primitive makes no single graph: false
    linears        of the whole: nodes of the kind "linear", each with the `modules` of the stack that it stands for

The IR is the rest; it is complete without these, and reading it back leaves them out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from eulerstack.hf.ecosystem import layers_of_stages
from eulerstack.hf.slots import slot_mixers
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.printer import to_data
from eulerstack.ir.types import IntegratorIR, ModelIR, ParallelIR, PrimitiveIR, Stage, thaw
from eulerstack.plugins.asking import ask
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.primitive import CacheLayer, Dims, Features, Kind, Params, Primitive
from eulerstack.schema.sizes import WIDTH_SIZES, dims_from, sizes_at_width

# Names of config.json that only the core gives.
CORE_FIELDS = frozenset(
    {
        "model_type", "architectures", "auto_map", "dtype", "vocab_size", "hidden_size", "intermediate_size",
        "num_hidden_layers", "n_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "max_position_embeddings", "initializer_range", "tie_word_embeddings", "layer_types", "sliding_window",
        "tensor_parallel_plan", "use_cache", "tissue", "transition_token_id", "v1_extensions",
        "architecture",
    }
)  # fmt: skip
LAYER_KINDS: tuple[Kind, ...] = ("mixer", "ffn", "norm", "residual")


def architecture_of(ir: ModelIR) -> dict[str, Any]:
    """The IR as JSON, with what exports must know of declarations."""
    registry = get_registry()
    architecture = to_data(ir)
    for kind, node in _nodes(architecture):
        if variant := variant_of(registry, registry.get(kind, node["type"]), node["params"]):
            node["class"] = variant
    probed = bool(architecture["training_hints"]["differentiation_objectives"]["usage_probe_coef"])
    for block in architecture["blocks"]:
        _write_block(registry, ir, block)
        mixer = registry.get("mixer", block["mixer"]["type"])
        if probed and units_of(registry, mixer, block["mixer"]["params"]) > 1:
            block["mixer"]["routes"] = True
        for node in slot_mixers(block):
            if adds_loss(registry, registry.get("mixer", node["type"]), node["params"]):
                # What holds it hands on what it reports.
                node["routes"] = block["mixer"]["routes"] = True
    for written, stage in zip(architecture["layers"], ir.stages, strict=True):
        if not is_cached(registry, stage):
            written["cached"] = False
        elif (evaluations := evaluations_of(registry, stage)) != 1:
            written["evaluations"] = evaluations
        if isinstance(stage, ParallelIR):
            _write_merge(registry, dims_from(ir.model, ir.position.type), written["merge"], stage)
    position = registry.get("position", architecture["position"]["type"])
    if position.place != "mixers":
        architecture["position"]["place"] = position.place
    head = architecture["head"]
    declared = registry.get("head", head["type"])
    if not ask(registry, declared, bool, declared.lm_head, head["params"]):
        head["lm_head"] = False
    architecture["config_fields"] = config_fields(registry, architecture)
    if not all(registry.get(kind, node["type"]).one_graph for kind, node in _nodes(architecture)):
        architecture["one_graph"] = False
    if linears := _linears(ir, registry):
        architecture["linears"] = linears
    return architecture


def _linears(ir: ModelIR, registry: Registry) -> list[dict[str, Any]]:
    """What computes linear layers by other means, with the modules that it stands for."""
    nodes: dict[PrimitiveIR, dict[str, Any]] = {}
    for each in replaced_linears(ir, registry):
        if each.node not in nodes:
            node = {"type": each.node.type, "params": thaw(each.node.params), "modules": []}
            if variant := registry.get("linear", each.node.type).variant(each.node.params):
                node["class"] = variant
            nodes[each.node] = node
        nodes[each.node]["modules"].append(each.module)
    return list(nodes.values())


def evaluations_of(registry: Registry, stage: Stage) -> int:
    """How often one pass evaluates each layer of a stage."""
    if not isinstance(stage, IntegratorIR):
        return 1
    primitive = primitive_of(registry, "integrator", stage.integrator.type)
    return ask(registry, primitive, int, primitive.evaluations, stage.integrator.params)


def is_cached(registry: Registry, stage: Stage) -> bool:
    """Whether a cache can hold what a stage needs while decoding."""
    return not isinstance(stage, IntegratorIR) or primitive_of(registry, "integrator", stage.integrator.type).cached


def slots_in(registry: Registry, stage: Stage) -> int:
    """How many evaluations of each layer of a stage have cache slots of their own."""
    return evaluations_of(registry, stage) if is_cached(registry, stage) else 1


def cache_of_merge(registry: Registry, stage: ParallelIR) -> CacheLayer | None:
    """The cache slot of a merge that remembers tokens; None for one that does not."""
    merge = primitive_of(registry, "merge", stage.merge.type)
    return None if merge.cache is None else ask(registry, merge, CacheLayer, merge.cache, stage.merge_params)


def _write_merge(registry: Registry, dims: Dims, node: dict[str, Any], stage: ParallelIR) -> None:
    """Adds to a merge what it declares."""
    if cache_of_merge(registry, stage) is not None:
        node["slot"] = True
    merge = primitive_of(registry, "merge", stage.merge.type)
    _write_features(registry, node, features_of(registry, dims, merge, stage.merge_params))


def _nodes(architecture: dict[str, Any]) -> Iterator[tuple[Kind, dict[str, Any]]]:
    yield from ((kind, block[kind]) for block in architecture["blocks"] for kind in LAYER_KINDS)
    yield from (("mixer", node) for block in architecture["blocks"] for node in held_nodes(block["mixer"]))
    kinds: tuple[Kind, ...] = ("integrator", "merge")
    stages = [stage for stage in architecture["layers"] if not isinstance(stage, int)]
    yield from ((kind, stage[kind]) for stage in stages for kind in kinds if kind in stage)
    yield from (("memory", block["memory"]) for block in architecture["blocks"] if "memory" in block)
    yield "position", architecture["position"]
    yield "head", architecture["head"]
    if architecture["final_norm"] is not None:
        yield "norm", architecture["final_norm"]


def _write_block(registry: Registry, ir: ModelIR, block: dict[str, Any]) -> None:
    """Adds to one distinct layer what its mixer, its feed-forward block and its residual declare, and its sizes."""
    model: Mapping[str, Any] = ir.model
    if "shape_change" in block:
        model = sizes_at_width(ir.model, block["shape_change"]["d_out"])
        block["sizes"] = {word: model[word] for word in WIDTH_SIZES}
    dims = dims_from(model, ir.position.type)
    for mixer in slot_mixers(block):
        features = features_of(registry, dims, registry.get("mixer", mixer["type"]), mixer["params"])
        _write_features(registry, mixer, features)
    ffn = registry.get("ffn", block["ffn"]["type"])
    has_ffn = not ffn.absent
    if not has_ffn:
        block["ffn"]["absent"] = True
    if ffn.routes:
        block["ffn"]["routes"] = True
    residual = registry.get("residual", block["residual"]["type"])
    slots = ask(registry, residual, tuple[str, ...], residual.norm_slots, block["norm"]["position"], has_ffn)
    block["residual"]["norms"] = list(slots)
    if (streams := streams_of(registry, residual, block["residual"]["params"])) > 1:
        block["residual"]["residual_streams"] = streams


def streams_of(registry: Registry, residual: Primitive, params: Params) -> int:
    """How many streams a residual declares. Errors: CompatibilityError that names its plugin when that fails."""
    return ask(registry, residual, int, residual.streams, params)


def units_of(registry: Registry, primitive: Primitive, params: Params) -> int:
    """How many units a primitive routes to. Errors: CompatibilityError that names its plugin when that fails."""
    return ask(registry, primitive, int, primitive.routed_units, params)


def adds_loss(registry: Registry, mixer: Primitive, params: Params) -> bool:
    """Whether a mixer adds to the loss. Errors: CompatibilityError that names its plugin when that fails."""
    return ask(registry, mixer, bool, mixer.adds_loss, params)


def held_nodes(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes that a node of the architecture holds."""
    return list(node["params"][node["holds"]].values()) if "holds" in node else []


def _write_features(registry: Registry, node: dict[str, Any], features: Features) -> None:
    """Adds to the node of a mixer or merge what it declares about itself."""
    if written := _different(features):
        node["features"] = written
        rotation = written.get("rotation")
        if rotation:
            position = primitive_of(registry, "position", rotation["type"])
            if variant := variant_of(registry, position, rotation["params"]):
                rotation["class"] = variant


def variant_of(registry: Registry, primitive: Primitive, params: Params) -> str:
    """The name of the class where it depends on the parameters, otherwise "". Errors: as `features_of`."""
    return ask(registry, primitive, str, primitive.variant, params)


def features_of(registry: Registry, dims: Dims, mixer: Primitive, params: Params) -> Features:
    """What a mixer declares. Errors: CompatibilityError that names its plugin when that fails."""
    return ask(registry, mixer, Features, mixer.features, dims, params)


def _different(features: Features) -> dict[str, Any]:
    """The features that differ from their defaults, as JSON."""
    written: dict[str, Any] = {}
    for each in fields(Features):
        value = getattr(features, each.name)
        if value == each.default:
            continue
        if each.name == "rotation":
            value = {"type": value.position, "params": thaw(value.params)}
        written[each.name] = list(value) if isinstance(value, tuple) else value
    return written


def config_fields(registry: Registry, architecture: dict[str, Any]) -> dict[str, Any]:
    """What the first layer's primitives, the position and the head say under config.json's names.

    Errors: CompatibilityError that names the plugin when a primitive says what is not its own to say, or no JSON.
    """
    first = architecture["blocks"][layers_of_stages(architecture)[0][0]]
    # Of several mixers in one layer the first speaks.
    nodes: list[tuple[Kind, Any]] = [("mixer", node) for node in reversed(held_nodes(first["mixer"]))]
    nodes += [(kind, first[kind]) for kind in LAYER_KINDS]
    nodes += [("position", architecture["position"]), ("head", architecture["head"])]
    found: dict[str, Any] = {}
    for kind, node in nodes:
        primitive = registry.get(kind, node["type"])
        found.update(ask(registry, primitive, dict, _own_fields, primitive, node["params"], architecture["model"]))
    return found


def _own_fields(primitive: Primitive, params: Params, model: Mapping[str, Any]) -> dict[str, Any]:
    said = thaw(primitive.config_fields(params, model))
    if taken := sorted(set(said) & CORE_FIELDS):
        raise ValueError(f"config.json's {', '.join(taken)} is not a primitive's to say")
    return dict(json.loads(json.dumps(said, allow_nan=False)))
