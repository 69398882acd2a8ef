"""Completes data from the JSON Schema that describes it: defaults filled in, numbers in their canonical type.

A schema's `default` is the only place where a default is written. Words keep the order of the schema, so that equal
data has equal text. The data is taken as valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def complete(schema: Schema, value: Any, root: Schema | None = None) -> Any:
    """`value` with every default of `schema` that applies to it.

    A word of JSON type number becomes a float, so that 1 and 1.0 are the same. `root` is the document that `$ref`s
    point into. Words that the schema doesn't know are kept, after those it knows.
    """
    root = schema if root is None else root
    rules = list(applicable(schema, value, root))
    if isinstance(value, Mapping):
        return _complete_mapping(rules, value, root)
    if isinstance(value, (list, tuple)):
        items: Schema = next((rule["items"] for rule in rules if isinstance(rule.get("items"), Mapping)), {})
        return [complete(items, item, root) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and _is_real(rules):
        return float(value)
    return value


def complete_words(properties: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """`complete` for bare properties: only their words are kept."""
    return complete({"properties": properties}, {word: value[word] for word in properties if word in value})


def _complete_mapping(rules: list[Schema], value: Mapping[str, Any], root: Schema) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for rule in rules:
        for word, schema in rule.get("properties", {}).items():
            if isinstance(schema, Mapping):
                words[word] = {**words[word], **schema} if word in words else schema
    filled = {}
    for word, schema in words.items():
        if word in value:
            filled[word] = complete(schema, value[word], root)
        else:
            filled.update(
                (word, complete(schema, rule["default"], root))
                for rule in _references(schema, root)
                if "default" in rule
            )
    for word, item in value.items():
        if word not in filled:
            filled[word] = complete(_schema_of_others(rules, word), item, root)
    return filled


def _schema_of_others(rules: list[Schema], word: str) -> Schema:
    """The schema of a word that no `properties` name."""
    for rule in rules:
        for pattern, schema in rule.get("patternProperties", {}).items():
            if isinstance(schema, Mapping) and re.search(pattern, word):
                return schema
    return next((s for s in (rule.get("additionalProperties") for rule in rules) if isinstance(s, Mapping)), {})


def _references(schema: Schema, root: Schema) -> Iterator[Schema]:
    """`schema` and what its `$ref` stands for."""
    yield schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for step in reference[2:].split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        yield from _references(target, root)


def applicable(schema: Any, value: Any, root: Schema | None = None) -> Iterator[Schema]:
    """Every schema that describes `value`: references, `allOf`, the branch of `if`, and the branches that fit."""
    if not isinstance(schema, Mapping):
        return
    root = schema if root is None else root
    for rule in _references(schema, root):
        yield rule
        for part in rule.get("allOf", ()):
            yield from applicable(part, value, root)
        if "if" in rule:
            yield from applicable(rule.get("then" if _fits(rule["if"], value) else "else"), value, root)
        for part in (*rule.get("anyOf", ()), *rule.get("oneOf", ())):
            if isinstance(part, Mapping) and _fits({**part, "$defs": root.get("$defs", {})}, value):
                yield from applicable(part, value, root)


def _fits(schema: Schema, value: Any) -> bool:
    """Whether `value` satisfies `schema`. The common kind, "this word is this name", needs no library."""
    words = schema.get("properties", {})
    if set(schema) <= {"properties", "required"} and all(set(rule) == {"const"} for rule in words.values()):
        if not isinstance(value, Mapping):
            return True
        return all(word in value for word in schema.get("required", ())) and all(
            value[word] == rule["const"] for word, rule in words.items() if word in value
        )
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema).is_valid(value)


def _is_real(rules: list[Schema]) -> bool:
    """Whether a whole number here stands for a real one."""
    kinds = [kind for rule in rules if "type" in rule for kind in _as_list(rule["type"])]
    return "number" in kinds and "integer" not in kinds


def _as_list(kinds: Any) -> list[str]:
    return [kinds] if isinstance(kinds, str) else list(kinds)
