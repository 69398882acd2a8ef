"""Random specs drawn from the assembled JSON Schema: every word of every registered primitive can come up.

A small valid spec takes one word after another, each with a value that its schema allows; a word that contradicts what
is there already, by whatever rule, is left out again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from random import Random
from typing import Any

import eulerstack as es
from eulerstack.errors import EulerStackError
from eulerstack.plugins.manager import get_registry
from eulerstack.schema.assemble import assemble

Data = dict[str, Any]
SECTIONS = ("model", "embedding", "head", "training_hints", "compatibility")
PARTS = ("mixer", "ffn", "norm", "residual", "memory", "shape_change")
# What changes nothing but the time that a test takes, or names a file.
LEFT_OUT = {"name", "pretrained", "repeat", "type", "compile_target"}
NOTHING = object()


def drawn(source: Random) -> Data:
    """A valid spec."""
    spec: Data = {
        "schema_version": 1,
        "model": {"name": "drawn", "d_model": 32, "vocab_size": 40, "max_seq_len": 64, "n_heads": 4},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": source.choice(get_registry().names("position"))},
        "layer_templates": {"base": {"mixer": {"type": "retnet"}, "ffn": {"type": "mlp"}}},
        "layer_schedule": [{"template": "base"}],
        "head": {"type": "causal_lm"},
    }
    schema = assemble(get_registry(), "en")
    names = ["base", *(f"t{number}" for number in range(source.randint(0, 2)))]
    for name in names:
        _take(spec, ("layer_templates", name), copy.deepcopy(spec["layer_templates"]["base"]))
        template = schema["properties"]["layer_templates"]["additionalProperties"]
        for part in source.sample(PARTS, source.randint(2, len(PARTS))):
            _draw_part(spec, ("layer_templates", name, part), template["properties"][part], source)
    spec["layer_schedule"] = []
    for name in names:
        spec["layer_schedule"].append({"template": name, "repeat": source.randint(1, 2)})
    for _ in range(source.randint(0, 2)):
        _draw_stage(spec, names, source)
    if source.random() < 0.2:
        _take(spec, ("head",), _head(source, names))
    for section in source.sample(SECTIONS, source.randint(0, len(SECTIONS))):
        _draw_words(spec, (section,), schema["properties"][section], source, 3)
    return spec


def is_valid(spec: Data) -> bool:
    """Whether it passes every stage up to the IR."""
    try:
        es.normalize_to_ir(copy.deepcopy(spec))
    except EulerStackError:
        return False
    return True


def _take(spec: Data, path: tuple[Any, ...], value: Any) -> bool:
    """Puts a value into the spec unless that makes it invalid."""
    holder = spec
    for part in path[:-1]:
        holder = holder.setdefault(part, {}) if isinstance(holder, dict) else holder[part]
    if not isinstance(holder, dict):
        return False
    before = holder.get(path[-1], NOTHING)
    holder[path[-1]] = value
    if is_valid(spec):
        return True
    if before is NOTHING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = before
    return False


def _draw_part(spec: Data, path: tuple[Any, ...], schema: Mapping[str, Any], source: Random) -> None:
    """A primitive of this part, and some of its words."""
    names = get_registry().names(path[-1]) if path[-1] != "shape_change" else []
    if names:
        kind = source.choice(names)
        chosen = _chosen(schema, kind)
        whole: Data = {"type": kind}
        if kind == "branched":
            branches = {"a": {"type": "retnet"}, "b": {"type": "attention", "attention": {"window": 8}}}
            whole["branched"] = {"branches": branches, "selector": {"type": "learned_gate"}}
        for word in chosen.get("required", ()):
            if word not in whole:
                value = _value(chosen["properties"][word], source)
                whole |= {} if value is NOTHING else {word: value}
        if not _take(spec, path, whole):
            return
        _draw_words(spec, path, chosen, source, 3)
        block = chosen["properties"].get(_block(path[-1], kind))
        if isinstance(block, Mapping) and "properties" in block:
            _draw_words(spec, (*path, _block(path[-1], kind)), block, source, 6)
    else:
        _take(spec, path, _value(schema, source))


def _block(part: str, kind: str) -> str:
    return get_registry().get(part, kind).block_name


def _chosen(schema: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The schema of a place where a type is chosen, for that type."""
    for condition in schema.get("allOf", ()):
        if condition.get("if", {}).get("properties", {}).get("type", {}).get("const") == kind:
            found: Mapping[str, Any] = condition["then"]
            return found
    return schema


def _draw_words(spec: Data, path: tuple[Any, ...], schema: Mapping[str, Any], source: Random, most: int) -> None:
    words = [word for word in schema.get("properties", {}) if word not in LEFT_OUT]
    for word in source.sample(words, min(len(words), source.randint(0, most))):
        value = _value(schema["properties"][word], source)
        if value is not NOTHING:
            _take(spec, (*path, word), value)


def _draw_stage(spec: Data, names: list[str], source: Random) -> None:
    """A stage of several layers, or a layer that only some tokens pass, where the templates allow it."""
    body = source.choice(names)
    registry = get_registry()
    stage = source.choice(
        [
            {"integrator": {"type": source.choice(registry.names("integrator")), "steps": 2, "body": body}},
            {
                "parallel": [
                    {"stream": "a", "body": [{"template": body}]},
                    {"stream": "b", "body": [{"template": source.choice(names)}]},
                ],
                "merge": {"type": source.choice(registry.names("merge"))},
            },
            {
                "template": body,
                "depth_gating": {"enabled": True, "capacity": 0.5, "router": source.choice(["top_k", "learned_gate"])},
            },
        ]
    )
    if stage.get("merge", {}).get("type") == "cross_attn":
        stage["merge"] |= {"from": "a", "to": "b"}
    place = source.randint(0, len(spec["layer_schedule"]))
    spec["layer_schedule"].insert(place, stage)
    if not is_valid(spec):
        del spec["layer_schedule"][place]


def _head(source: Random, names: list[str]) -> Data:
    mtp = {"n_predict": source.randint(1, 2), "head_layers": 1, "head_template": source.choice(names)}
    return {"type": "causal_lm_mtp", "mtp": mtp}


def _value(schema: Mapping[str, Any], source: Random) -> Any:
    """A value that the schema allows, of small size; NOTHING where it says too little."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return source.choice(schema["enum"])
    kinds = schema.get("type", ())
    kind = source.choice([kinds] if isinstance(kinds, str) else list(kinds)) if kinds else None
    if kind == "null":
        return None
    if kind == "boolean":
        return source.random() < 0.5
    if kind in ("integer", "number"):
        return _number(schema, kind, source)
    if kind == "object" and "properties" in schema:
        required = schema.get("required", ())
        chosen = [word for word in schema["properties"] if word in required or source.random() < 0.4]
        values = {word: _value(schema["properties"][word], source) for word in chosen}
        return {word: value for word, value in values.items() if value is not NOTHING}
    examples = schema.get("examples", ())
    return source.choice(examples) if kind == "string" and examples else NOTHING


def _number(schema: Mapping[str, Any], kind: str, source: Random) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = min(schema.get("maximum", schema.get("exclusiveMaximum", low + 64)), low + 64)
    if kind == "integer":
        return int(source.choice([low, low + 1, low + 3, low + 7, 8, 16, 32, 48]))
    return source.choice([round(low + (high - low) * share, 4) for share in (0.001, 0.01, 0.1, 0.5)] + [0.5, 1.0])
