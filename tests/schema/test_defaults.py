"""Completing data from a schema."""

from eulerstack.schema.defaults import complete


def test_defaults_fill_what_is_missing_in_the_schemas_order() -> None:
    schema = {"properties": {"a": {"default": 1}, "b": {"default": None}, "c": {}}}
    assert list(complete(schema, {"c": 3, "b": 2}).items()) == [("a", 1), ("b", 2), ("c", 3)]


def test_only_the_branch_that_applies_gives_defaults() -> None:
    schema = {
        "properties": {"type": {}},
        "allOf": [
            {
                "if": {"required": ["type"], "properties": {"type": {"const": name}}},
                "then": {"properties": {name: {"default": True}}},
            }
            for name in ("x", "y")
        ],
    }
    assert complete(schema, {"type": "y"}) == {"type": "y", "y": True}


def test_numbers_become_floats_and_integers_and_booleans_stay() -> None:
    schema = {
        "properties": {
            "real": {"type": ["number", "null"]},
            "whole": {"type": "integer"},
            "flag": {"type": "boolean"},
            "mixed": {"anyOf": [{"type": "number"}, {"type": "string"}]},
            "many": {"type": "array", "items": {"type": "number"}},
        }
    }
    data = complete(schema, {"real": 1, "whole": 2, "flag": True, "mixed": 3, "many": [4, 5.5]})
    assert {word: type(value) for word, value in data.items()} == {
        "real": float,
        "whole": int,
        "flag": bool,
        "mixed": float,
        "many": list,
    }
    assert all(type(item) is float for item in data["many"])


def test_references_are_followed() -> None:
    schema = {"$ref": "#/$defs/thing", "$defs": {"thing": {"properties": {"a": {"default": 7}}}}}
    assert complete(schema, {}) == {"a": 7}


def test_other_words_are_completed_by_the_pattern_they_match() -> None:
    schema = {
        "patternProperties": {"^n_": {"type": "number"}},
        "additionalProperties": {"type": "object", "properties": {"a": {"default": 1}}},
    }
    assert complete(schema, {"n_x": 1, "other": {}}) == {"n_x": 1.0, "other": {"a": 1}}
