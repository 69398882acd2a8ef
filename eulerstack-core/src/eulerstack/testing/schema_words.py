"""Every field that a spec may hold, read from the assembled schema itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.dsl.paths import RESERVED_KEY
from eulerstack.schema.assemble import assemble
from eulerstack.schema.sections import HELD_NAME

# What stands in the schema, and how the table of fields calls it.
SHORT = (
    (r"^layer_schedule\.override\.", "override."),
    (r"^layer_templates\.(?=[a-z]+[.<])", ""),
    (r"^embedding<[^>]+>\.", "embedding."),
    (r"^embedding\.rope_scaling<([^>]+)>\.", r"scaling.\1."),
    (r"<([^>]+)>\.", r".\1."),
)


def fields_of(registry: Any) -> tuple[set[str], set[str]]:
    """The names of (fields, plain mappings of fields) of the language that `registry` makes.

    A primitive's words are called `<kind>.<type>.<word>`, those in its block too; the words of a position and those
    beside `type` that all types share stand under their section. A mapping that may be null, or a value instead, is a
    field of its own; one that is only a place for others is not. What a primitive holds is a field: its own words are
    those of the primitives held.
    """
    fields: set[str] = set()
    places: set[str] = set()
    blocks = {(primitive.kind, primitive.name): primitive.block_name for primitive in registry.primitives()}
    for path, schema in _words(assemble(registry), ""):
        name = _short(path, blocks)
        if name is not None:
            (places if _is_place(schema) else fields).add(name)
    return fields, places - fields


def _short(path: str, blocks: Mapping[tuple[str, str], str]) -> str | None:
    """The table's name of a path; None for a parameter block itself."""
    chosen = re.search(r"(?:^|\.)([a-z_]+)<([^>]+)>\.", path)
    if chosen:
        kind = {"embedding": "position"}.get(chosen[1], chosen[1])
        block = blocks.get((kind, chosen[2]))
        rest = path[chosen.end() :]
        if rest == block:
            return None
        if block and rest.startswith(f"{block}."):
            path = f"{kind}.{chosen[2]}.{rest.removeprefix(f'{block}.')}"
    for pattern, name in SHORT:
        path = re.sub(pattern, name, path)
    return path


def _is_place(schema: Mapping[str, Any]) -> bool:
    """Whether a word can only be a mapping, or a list of mappings, with words that are listed themselves."""
    if schema.get("type") == "array":
        return _is_place(schema.get("items", {}))
    if schema.get("type") != "object":
        return False
    below = None if schema.get("propertyNames") == {"pattern": HELD_NAME} else schema.get("additionalProperties")
    return bool(schema.get("properties")) or (isinstance(below, Mapping) and _is_place(below))


def _words(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, schema) of every word at or below `place`; `<name>` follows the mapping whose type it is."""
    if not isinstance(schema, Mapping):
        return
    for word, below in schema.get("properties", {}).items():
        # `true` stands for a word that belongs to another type, and is refused with a better message later.
        if isinstance(below, Mapping):
            path = f"{place}.{word}" if place else word
            yield path, below
            yield from _words(below, path)
    for part in (part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ())):
        if "if" not in part:
            yield from _words(part, place)
            continue
        (choice,) = part["if"]["properties"].values()
        own = {word: below for word, below in part["then"]["properties"].items() if not _shared(word, schema)}
        yield from _words({"properties": own}, f"{place}<{choice['const']}>")
    held = schema.get("propertyNames") == {"pattern": HELD_NAME}
    for key in ("items", "if", "then", "else") if held else ("additionalProperties", "items", "if", "then", "else"):
        yield from _words(schema.get(key), place)
    # Namespaces with a handler may stand anywhere, and are fields of the whole spec.
    for pattern, below in schema.get("patternProperties", {}).items():
        if not place and pattern != RESERVED_KEY:
            yield pattern.strip("^$").replace("\\", ""), below


def _shared(word: str, schema: Mapping[str, Any]) -> bool:
    return word in schema.get("properties", {})


def other_values(schema: Mapping[str, Any], now: Any) -> Iterator[Any]:
    """Legal values that a field may have beside the one it has, as far as its schema tells; nearest first."""
    if "enum" in schema:
        yield from (value for value in schema["enum"] if value != now)
        return
    types = schema.get("type", ())
    types = [types] if isinstance(types, str) else types
    if "boolean" in types:
        yield from (value for value in (True, False) if value is not now)
    if "integer" in types or "number" in types:
        yield from _other_numbers(schema, now, whole="number" not in types)
    if "null" in types and now is not None:
        yield None


def _other_numbers(schema: Mapping[str, Any], now: Any, whole: bool) -> Iterator[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    near: Any = now
    if isinstance(now, bool) or not isinstance(now, (int, float)):
        near = next((bound for bound in (low, above) if bound is not None), 1)
    steps = (1, -1, near, 2, 0) if whole else (near, -near / 2, 0.5, -0.5, (1 - near) / 2, 0.0)
    for value in dict.fromkeys(near + step for step in steps):
        fits = value != now and (low is None or value >= low) and (high is None or value <= high)
        fits = fits and (above is None or value > above) and (below is None or value < below)
        if fits:
            yield int(value) if whole else float(value)
