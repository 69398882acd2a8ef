"""A spec as YAML that a person would have written: one short line a section or template part, defaults left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.ir.yaml_text import scalar

_WIDTH = 116
# stated although they are defaults, because a reader looks for them
_ALWAYS = frozenset({"type", "dtype", "positional", "position", "activation", "tie_weights", "rope_theta", "repeat"})
_SECTIONS = ("tokenizer_contract", "embedding", "head", "training_hints")


def without_defaults(spec: Mapping[str, Any], schema: Mapping[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """`spec` less the words whose value is the schema's default.

    `schema` is the assembled JSON Schema; `blocks` maps "mixer.attention", "ffn.gated_mlp", … to the properties of a
    primitive's block and inline words.
    """
    sections = schema["properties"]
    result = dict(spec)
    result["model"] = _pruned(spec["model"], sections["model"]["properties"])
    for name in _SECTIONS:
        if name in spec:
            kind = {"embedding": "position", "head": "head"}.get(name, "")
            properties = {
                **sections[name].get("properties", {}),
                **blocks.get(f"{kind}.{spec[name].get('positional' if kind == 'position' else 'type')}", {}),
            }
            result[name] = _pruned(spec[name], properties)
    if not result.get("training_hints"):
        result.pop("training_hints", None)
    result["layer_templates"] = {
        name: {slot: _pruned_part(slot, part, blocks) for slot, part in template.items()}
        for name, template in spec["layer_templates"].items()
    }
    return result


def _pruned_part(slot: str, part: Mapping[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    properties = blocks.get(f"{slot}.{part['type']}", {})
    inside = [key for key, value in part.items() if isinstance(value, Mapping) and key not in properties]
    result = {key: _pruned(value, properties) if key in inside else value for key, value in part.items()}
    result = {key: value for key, value in result.items() if value != {} or key not in inside}
    return _pruned(result, properties)


def _pruned(values: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in values.items()
        if key in _ALWAYS or "default" not in properties.get(key, {}) or properties[key]["default"] != value
    }


def spec_text(spec: Mapping[str, Any], comment: str) -> str:
    """YAML of `spec` under a comment line."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for key, value in spec.items():
        if key == "schema_version":
            lines.append(f"{key}: {value}")
            continue
        lines.append("")
        lines += _block(key, value, 0, short=key in _SECTIONS)
    return "\n".join(lines) + "\n"


def _block(key: str, value: Any, indent: int, short: bool) -> list[str]:
    """`key: value`, on one line where allowed and where it fits."""
    pad = " " * indent
    line = f"{pad}{scalar(key)}: {flow(value)}"
    if not isinstance(value, (Mapping, list)) or (short and len(line) <= _WIDTH) or not value:
        return [line]
    if isinstance(value, list):
        return [f"{pad}{key}:", *(f"{pad}  - {flow(item)}" for item in value)]
    lines = [f"{pad}{scalar(key)}:"]
    for inner, item in value.items():
        # a template's name stands alone, its parts take one line each
        lines += _block(inner, item, indent + 2, short=not (indent == 0 and key == "layer_templates"))
    return lines


def flow(value: Any) -> str:
    """One-line YAML of JSON data."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)
