"""Every declared field matters: another legal value has an effect that can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from eulerstack.errors import CompatibilityError, EulerStackError, ValidationError
from eulerstack.ir import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import validate_v2
from eulerstack.testing.bench import node_of
from eulerstack.testing.cases import Case
from eulerstack.testing.effects import EFFECTS
from eulerstack.testing.example import Example, Other
from eulerstack.testing.schema_words import fields_of, other_values
from eulerstack.testing.specs import changed

# What a field may do, the likeliest first.
USUAL = ("function", "initial", "training", "loss", "cache_bytes", "remembered", "fact", "cost", "operations")


def check_fields(example: Example) -> None:
    """Every declared field matters."""
    words = words_of(example)
    unknown = set(example.others) - words.keys()
    assert not unknown, f"`others` names {', '.join(sorted(unknown))}, which it does not declare"
    for word, schema in words.items():
        check_word(example, word, schema)


def words_of(example: Example) -> dict[str, Mapping[str, Any]]:
    """The fields that its declaration brings, by their paths, and the schema of each."""
    if example.kind == "linear":
        return {name: each for space in example.namespaces for name, each in space.schema.get("properties", {}).items()}
    prefix = f"{example.kind}.{example.name}."
    names = (name.removeprefix(prefix) for name in fields_of(get_registry())[0] if name.startswith(prefix))
    primitive = example.primitive
    properties = {**primitive.inline, **dict((primitive.schema or {}).get("properties", {}))}
    return {name: schema for name in sorted(names) if (schema := _below(properties, name)) is not None}


def _below(properties: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The schema of a dotted name; None where it is not one of `properties`, but of what the primitive holds."""
    first, _, rest = name.partition(".")
    schema = properties.get(first)
    if not rest or not isinstance(schema, Mapping):
        return schema
    return _below(schema.get("properties", {}), rest)


def check_word(example: Example, word: str, schema: Mapping[str, Any]) -> None:
    """Another value of one field has an effect."""
    place = example.path(word)
    if word in example.others:
        told = example.others[word]
        other = told if isinstance(told, Other) else Other(told)
        trials = [Case(effect, {place: other.value}, dict(other.given)) for effect in _effects(other)]
    else:
        now = _value(example, word)
        trials = [Case(effect, {place: value}) for value in other_values(schema, now) for effect in USUAL]
        assert trials, f"what else {word} may be does not follow from its schema: give Example(others={{{word!r}: …}})"
    for case in trials:
        if _has_effect(example, case):
            return
    tried = sorted({repr(value) for case in trials for value in case.changes.values()})
    raise AssertionError(
        f"{word} does nothing: with {' or '.join(tried)} logits, initial weights, loss, cache, config.json and price "
        f"are what they were. If this example leaves it out of force, give Example(others={{{word!r}: Other(…)}})"
    )


def _effects(other: Other) -> tuple[str, ...]:
    return (other.effect,) if other.effect else USUAL


def _has_effect(example: Example, case: Case) -> bool:
    """Whether a case's changes have its effect, or are refused for a reason."""
    before = changed(example.spec(), case.given)
    after = changed(before, case.changes)
    if case.effect != "refused":
        try:
            validate_v2(after)
        except ValidationError as error:
            raise AssertionError(f"the kit's other value is not legal: {error}") from error
        except CompatibilityError:
            # A value that is refused beside the others is not ignored.
            return True
    try:
        EFFECTS[case.effect](before, after, case)
    except (AssertionError, EulerStackError, pytest.fail.Exception):
        return False
    return True


def _value(example: Example, word: str) -> Any:
    ir: Any = normalize_to_ir(example.spec())
    value: Any = node_of(example, ir).params
    if example.kind == "linear":
        value = ir.extensions[example.namespaces[0].key]
    for key in word.split("."):
        value = value[key] if isinstance(value, Mapping) else None
    return value
