"""Fills in the defaults that a JSON Schema declares; the data is taken as valid."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def fill(schema: Schema, value: Any) -> Any:
    """A copy of `value` with every default of `schema` that applies to it, at every depth."""
    if isinstance(value, Mapping):
        rules = list(applicable(schema, value))
        words: dict[str, Any] = {}
        for rule in rules:
            words.update(rule.get("properties", {}))
        filled = {}
        for word, below in words.items():
            if word in value:
                filled[word] = fill(below, value[word])
            elif isinstance(below, Mapping) and "default" in below:
                filled[word] = fill(below, below["default"])
        others: Any = next((rule["additionalProperties"] for rule in rules if "additionalProperties" in rule), {})
        return filled | {word: fill(others, item) for word, item in value.items() if word not in filled}
    if isinstance(value, (list, tuple)):
        items = schema.get("items", {}) if isinstance(schema, Mapping) else {}
        return [fill(items, item) for item in value]
    return copy.copy(value)


def fill_words(properties: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """`fill` for bare properties: only their words are kept."""
    return fill({"properties": properties}, {word: value[word] for word in properties if word in value})


def applicable(schema: Any, value: Mapping[str, Any]) -> Iterator[Schema]:
    """Every schema that describes the mapping: itself, its `allOf`, the branch of `if`, alternatives that fit."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for part in schema.get("allOf", ()):
        yield from applicable(part, value)
    if "if" in schema:
        yield from applicable(schema.get("then" if _fits(schema["if"], value) else "else"), value)
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if _fits(part, value):
            yield from applicable(part, value)


def _fits(condition: Any, value: Mapping[str, Any]) -> bool:
    if isinstance(condition, Mapping) and set(condition) <= {"properties", "required"}:
        constants = condition.get("properties", {})
        if all(isinstance(part, Mapping) and set(part) == {"const"} for part in constants.values()):
            present = all(word in value for word in condition.get("required", ()))
            return present and all(value[word] == part["const"] for word, part in constants.items() if word in value)
    from jsonschema import Draft202012Validator

    return Draft202012Validator(condition).is_valid(value)
