"""An IR back as data: a canonical spec, its text, and the JSON form that config.json holds.

The spec is complete and canonical: equal IRs give equal text. Layers that came from one template with different
overrides are one template and overrides again; equal neighbours in the schedule are one entry.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any

from eulerstack.dsl.paths import parse_layers_path
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.reserved import put_back
from eulerstack.ir.types import (
    FrozenMapping,
    IntegratorIR,
    LayerIR,
    ModelIR,
    NormIR,
    ParallelIR,
    PrimitiveIR,
    Stage,
    StreamIR,
    thaw,
)
from eulerstack.ir.yaml_text import yaml_text
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.primitive import Kind
from eulerstack.schema.sections import ir_words, shared_params

Data = dict[str, Any]


def print_ir(ir: ModelIR, registry: Registry | None = None) -> str:
    """The canonical text of a model: a valid spec file whose IR is `ir`."""
    return yaml_text(to_spec(ir, registry))


def to_spec(ir: ModelIR, registry: Registry | None = None) -> Data:
    """A complete spec whose normalisation is `ir`.

    Layers under one template name that no override can tell apart, which no spec can give rise to, are given templates
    of their own, with a number after the name.
    """
    registry = get_registry() if registry is None else registry
    templates, uses = _templates(ir, registry)
    spec: Data = {"schema_version": ir.schema_version}
    for section in ("model", "tokenizer_contract"):
        spec[section] = _ordered(getattr(ir, section), ir_words(section))
    spec["embedding"] = _embedding(registry, ir)
    spec["layer_templates"] = templates
    spec["layer_schedule"] = _schedule(ir, uses, registry)
    spec["head"] = _primitive(registry, "head", ir.head)
    for section in ("training_hints", "compatibility"):
        spec[section] = _ordered(getattr(ir, section), ir_words(section))
    if ir.execution_modes:
        spec["execution_modes"] = [_ordered(mode, ir_words("execution_modes")) for mode in ir.execution_modes]
        spec["transition"] = _ordered(ir.transition, ir_words("transition"))
    if ir.tissue:
        spec["tissue"] = _ordered(ir.tissue, ir_words("tissue"))
    for path, value in sorted(ir.extensions.items()):
        if parse_layers_path(path) is None:
            put_back(spec, path, _sorted(value))
    return spec


def _sorted(value: Any) -> Any:
    """Plain data with its keys in a canonical order: `type` first, then the alphabet."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: (key != "type", key))}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


def _ordered(data: Mapping[str, Any], words: Iterable[str]) -> Data:
    """Plain data with the known words in their order, the others after them."""
    known = {word: _sorted(data[word]) for word in words if word in data}
    return {**known, **{word: value for word, value in _sorted(data).items() if word not in known}}


def _primitive(registry: Registry, kind: Kind, node: PrimitiveIR, **beside: Any) -> Data:
    """A primitive as a spec writes it: the words beside `type`, then the block."""
    primitive = primitive_of(registry, kind, node.type)
    if node.holds:
        held = {name: _primitive(registry, kind, each) for name, each in node.held.items()}
        node = PrimitiveIR(node.type, FrozenMapping({**node.params, node.holds: held}))
    inline = [word for word in (*shared_params(kind), *primitive.inline) if word in node.params]
    words = {word: _sorted(node.params[word]) for word in inline}
    rest = {word: value for word, value in node.params.items() if word not in words}
    if primitive.schema is None:
        return {"type": node.type, **beside, **words, **_ordered(rest, ())}
    block = _ordered(rest, primitive.schema.get("properties", {}))
    return {"type": node.type, **beside, **words, primitive.block_name: block}


def _embedding(registry: Registry, ir: ModelIR) -> Data:
    position = _primitive(registry, "position", ir.position)
    own = {"type": ir.embedding["type"], "positional": position.pop("type")}
    return {**own, **_ordered(ir.embedding, ir_words("embedding")), **position}


def _template(registry: Registry, layer: LayerIR) -> Data:
    template = {
        "mixer": _primitive(registry, "mixer", layer.mixer),
        "ffn": _primitive(registry, "ffn", layer.ffn),
        "norm": _primitive(registry, "norm", layer.norm, position=layer.norm.position),
        "residual": _primitive(registry, "residual", layer.residual),
    }
    if layer.memory is not None:
        template["memory"] = _primitive(registry, "memory", layer.memory)
    return template if layer.shape_change is None else {**template, "shape_change": _sorted(layer.shape_change)}


def _templates(ir: ModelIR, registry: Registry) -> tuple[Data, dict[LayerIR, tuple[str, Data]]]:
    """The templates of a spec, and for each distinct layer its template's name and the override it needs.

    An integrator names its body without an override, and so does a head its layers: of one template's layers such a one
    is the base, used by the schedule or not.
    """
    groups: dict[str, Counter[LayerIR]] = {}
    bodies = {stage.body for stage in ir.stages if isinstance(stage, IntegratorIR)}
    last = ir.stages[-1] if isinstance(ir.stages[-1], LayerIR) and not ir.stages[-1].is_wrapped else None
    for layer, run in groupby(ir.layers):
        groups.setdefault(layer.template, Counter())[layer] += sum(1 for _ in run)
    templates: Data = {}
    uses: dict[LayerIR, tuple[str, Data]] = {}
    for name, group in groups.items():
        layers = [layer for layer, _ in group.most_common()]
        plain = [ir.head_layer] if ir.head_layer is not None and ir.head_layer.template == name else []
        candidates = (plain + [layer for layer in layers if layer in bodies])[:1] or layers
        base, overrides = _best_base(candidates, layers, last if last in group else None, registry)
        templates[name] = _template(registry, base)
        for layer in group:
            if layer in overrides and not (overrides[layer] and layer in bodies):
                uses[layer] = (name, overrides[layer])
    if ir.head_layer is not None and ir.head_layer.template not in templates:
        templates[ir.head_layer.template] = _template(registry, ir.head_layer)
    for layer in (layer for group in groups.values() for layer in group if layer not in uses):
        number = 2
        while (name := f"{layer.template}-{number}") in templates or name in groups:
            number += 1
        templates[name] = _template(registry, layer)
        uses[layer] = (name, {})
    return templates, uses


def _best_base(
    candidates: list[LayerIR], layers: list[LayerIR], last: LayerIR | None, registry: Registry
) -> tuple[LayerIR, dict[LayerIR, Data]]:
    """The candidate from which overrides reach most of the layers, the earliest of equals, and those overrides.

    `last` is the model's last layer, where it stands alone: whether its norm is `post` decides about the final norm, a
    parameter, so that no override may change it. A layer that differs from it there stands as a base with the last
    one's position.
    """
    best: tuple[LayerIR, dict[LayerIR, Data]] | None = None
    for layer in candidates:
        base = layer
        if last is not None and (base.norm.position == "post") != (last.norm.position == "post"):
            base = replace(base, norm=replace(base.norm, position=last.norm.position))
        reached = _reached(base, layers, registry)
        if best is None or len(reached) > len(best[1]):
            best = (base, reached)
        if len(best[1]) == len(layers):
            break
    assert best is not None, "a template is only listed because a layer uses it"
    return best


def _reached(base: LayerIR, layers: Iterable[LayerIR], registry: Registry) -> dict[LayerIR, Data]:
    """The layers that an override makes of `base`, and those overrides."""
    return {layer: override for layer in layers if (override := _override(base, layer, registry)) is not None}


def _override(base: LayerIR, layer: LayerIR, registry: Registry) -> Data | None:
    """The override that turns `base` into `layer`: {} when they are equal, None when none does."""
    override: Data = {}
    if (base.memory, base.shape_change) != (layer.memory, layer.shape_change):
        return None
    for key, before, after, words in (
        ("residual", base.residual, layer.residual, ("scaling",)),
        ("attention", base.mixer, layer.mixer, ("window", "attn_drop") if base.mixer.type == "attention" else ()),
        ("ffn", base.ffn, layer.ffn, ("activation",)),
    ):
        if before.type != after.type or set(before.params) != set(after.params):
            return None
        changed = {word: value for word, value in after.params.items() if before.params[word] != value}
        if not set(changed) <= set(words):
            return None
        if changed:
            override[key] = {word: changed[word] for word in words if word in changed}
    norm = _norm_override(base.norm, layer.norm, registry)
    if norm is None:
        return None
    return {**override, "norm": norm} if norm else override


def _norm_override(base: NormIR, norm: NormIR, registry: Registry) -> Data | None:
    position = {} if base.position == norm.position else {"position": norm.position}
    if base.type == norm.type:
        return position if base.params == norm.params else None
    inline = primitive_of(registry, "norm", norm.type).inline
    expected = {word: base.params.get(word, schema.get("default")) for word, schema in inline.items()}
    return {"type": norm.type, **position} if FrozenMapping(expected) == norm.params else None


# By the number of its first layer: (number of its last layer, path within the entry, value) of each reserved key.
Marks = Mapping[int, list[tuple[int, str, Any]]]
Uses = Mapping[LayerIR, tuple[str, Data]]


def _schedule(ir: ModelIR, uses: Uses, registry: Registry) -> list[Data]:
    """The run-length coded schedule. Reserved keys of an entry keep its borders."""
    marks: dict[int, list[tuple[int, str, Any]]] = {}
    for path, value in sorted(ir.extensions.items()):
        if (parsed := parse_layers_path(path)) is not None:
            marks.setdefault(parsed[0], []).append((parsed[1], parsed[2], value))
    entries: list[Data] = []
    first = 0
    for is_layer, run in groupby(ir.stages, key=lambda stage: isinstance(stage, LayerIR)):
        if is_layer:
            layers = [layer for stage in run for layer in stage.layers]
            entries += _runs(layers, first, marks, uses)
            first += len(layers)
            continue
        for stage in run:
            last = first + len(stage.layers) - 1
            entry: Data
            if isinstance(stage, ParallelIR):
                entry = {"parallel": [], "merge": _primitive(registry, "merge", stage.merge)}
                inside = first
                for stream in stage.streams:
                    entry["parallel"].append({"stream": stream.name, "body": _runs(stream.layers, inside, marks, uses)})
                    inside += len(stream.layers)
            else:
                assert isinstance(stage, IntegratorIR)
                body, _ = uses[stage.body]
                entry = {"integrator": _primitive(registry, "integrator", stage.integrator, body=body)}
            for end, rest, value in marks.get(first, ()):
                if end == last:
                    _put_back(entry, rest, _sorted(value))
            entries.append(entry)
            first = last + 1
    return entries


def _runs(layers: Sequence[LayerIR], first: int, marks: Marks, uses: Uses) -> list[Data]:
    """The entries of layers in a row, of which the first is the model's layer number `first`."""
    entries: list[Data] = []
    end = first + len(layers)
    index = 0
    while index < len(layers):
        here, count = first + index, 1
        # What starts here and goes on beyond these layers is the key of a stage that they are in.
        marked = [mark for mark in marks.get(here, ()) if mark[0] < end]
        last = marked[0][0] if marked else end - 1
        while here + count <= last and here + count not in marks and layers[index + count] == layers[index]:
            count += 1
        name, override = uses[layers[index]]
        entry: Data = {"template": name, "repeat": count}
        if override:
            entry["override"] = thaw(override)
        if (gating := layers[index].depth_gating) is not None:
            entry["depth_gating"] = {"enabled": True, **_sorted(gating)}
        for _, rest, value in marked:
            put_back(entry, rest, _sorted(value))
        entries.append(entry)
        index += count
    return entries


def _put_back(entry: Data, path: str, value: Any) -> None:
    """`put_back` for an entry whose streams are a list."""
    if (stream := re.match(r"parallel\[(\d+)\]\.", path)) is not None:
        entry, path = entry["parallel"][int(stream[1])], path[stream.end() :]
    put_back(entry, path, value)


def to_data(ir: ModelIR) -> Data:
    """The JSON form of a model: its distinct layers in `blocks`, and its stages in `layers`.

    A stage is the index of a block where it is one layer, otherwise a mapping with `layers`, or streams with `layers`,
    which are such indices. `head.block` is that of the layers of the head, where it has some.
    """
    blocks: dict[LayerIR, int] = {}
    stages: list[int | Data] = []
    for stage, run in groupby(ir.stages):
        # Equal neighbours are hashed once.
        indices = [
            index
            for layer, same in groupby(stage.layers)
            for index in [blocks.setdefault(layer, len(blocks))] * sum(1 for _ in same)
        ]
        for _ in run:
            if isinstance(stage, IntegratorIR):
                stages.append({"integrator": _node(stage.integrator), "layers": indices})
            elif isinstance(stage, ParallelIR):
                rest = iter(indices)
                streams = [
                    {"stream": stream.name, "layers": list(islice(rest, len(stream.layers)))}
                    for stream in stage.streams
                ]
                stages.append({"parallel": streams, "merge": _node(stage.merge)})
            else:
                stages += indices
    head = _node(ir.head)
    if ir.head_layer is not None:
        head["block"] = blocks.setdefault(ir.head_layer, len(blocks))
    return {
        "schema_version": ir.schema_version,
        "model": thaw(ir.model),
        "tokenizer_contract": thaw(ir.tokenizer_contract),
        "embedding": thaw(ir.embedding),
        "position": _node(ir.position),
        "blocks": [_block(layer) for layer in blocks],
        "layers": stages,
        "final_norm": None if ir.final_norm is None else _node(ir.final_norm),
        "head": head,
        "training_hints": thaw(ir.training_hints),
        "compatibility": thaw(ir.compatibility),
        "extensions": thaw(ir.extensions),
        "tissue": thaw(ir.tissue),
        **_phases(ir),
    }


def _phases(ir: ModelIR) -> Data:
    """The phases of a generation and what ends one, where there are any."""
    if not ir.execution_modes:
        return {}
    return {"execution_modes": thaw(ir.execution_modes), "transition": thaw(ir.transition)}


def _node(node: PrimitiveIR) -> Data:
    data = {"type": node.type, "params": thaw(node.params)}
    return {**data, "holds": node.holds} if node.holds else data


def _block(layer: LayerIR) -> Data:
    block = {
        "template": layer.template,
        "mixer": _node(layer.mixer),
        "ffn": _node(layer.ffn),
        "norm": {"type": layer.norm.type, "position": layer.norm.position, "params": thaw(layer.norm.params)},
        "residual": _node(layer.residual),
    }
    # What is wrapped around a layer, or stands beside its mixer, is absent where the spec has none of it.
    if layer.memory is not None:
        block["memory"] = _node(layer.memory)
    wrapped = {"depth_gating": layer.depth_gating, "shape_change": layer.shape_change}
    return {**block, **{word: thaw(value) for word, value in wrapped.items() if value is not None}}


def from_data(data: Mapping[str, Any]) -> ModelIR:
    """The model that `to_data` gave this JSON form of; it has no locations."""
    blocks = [
        LayerIR(
            template=block["template"],
            mixer=_read_node(block["mixer"]),
            ffn=_read_node(block["ffn"]),
            norm=NormIR(
                block["norm"]["type"], FrozenMapping(block["norm"]["params"]), position=block["norm"]["position"]
            ),
            residual=_read_node(block["residual"]),
            depth_gating=FrozenMapping(block["depth_gating"]) if "depth_gating" in block else None,
            memory=_read_node(block["memory"]) if "memory" in block else None,
            shape_change=FrozenMapping(block["shape_change"]) if "shape_change" in block else None,
        )
        for block in data["blocks"]
    ]
    final_norm = data["final_norm"]
    return ModelIR(
        schema_version=data["schema_version"],
        model=FrozenMapping(data["model"]),
        tokenizer_contract=FrozenMapping(data["tokenizer_contract"]),
        embedding=FrozenMapping(data["embedding"]),
        position=_read_node(data["position"]),
        stages=tuple(_read_stage(stage, blocks) for stage in data["layers"]),
        final_norm=None if final_norm is None else _read_node(final_norm),
        head=_read_node(data["head"]),
        training_hints=FrozenMapping(data["training_hints"]),
        compatibility=FrozenMapping(data["compatibility"]),
        extensions=FrozenMapping(data["extensions"]),
        execution_modes=tuple(map(FrozenMapping, data.get("execution_modes", ()))),
        transition=FrozenMapping(data.get("transition")),
        tissue=FrozenMapping(data["tissue"]),
        head_layer=blocks[data["head"]["block"]] if "block" in data["head"] else None,
    )


def _read_stage(stage: Any, blocks: Sequence[LayerIR]) -> Stage:
    if isinstance(stage, int):
        return blocks[stage]
    if "parallel" in stage:
        streams = (
            StreamIR(stream["stream"], tuple(blocks[index] for index in stream["layers"]))
            for stream in stage["parallel"]
        )
        return ParallelIR(tuple(streams), _read_node(stage["merge"]))
    return IntegratorIR(_read_node(stage["integrator"]), blocks[stage["layers"][0]], len(stage["layers"]))


def _read_node(data: Mapping[str, Any]) -> PrimitiveIR:
    params, holds = data["params"], data.get("holds", "")
    if holds:
        held = {name: {"type": each["type"], "params": each["params"]} for name, each in sorted(params[holds].items())}
        params = {**params, holds: held}
    return PrimitiveIR(data["type"], FrozenMapping(params), holds=holds)
