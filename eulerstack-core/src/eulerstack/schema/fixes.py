"""What to type where a value of another kind stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from eulerstack.dsl.paths import show
from eulerstack.errors import Message, msg

_KINDS = {
    "integer": msg("a whole number"),
    "number": msg("a number"),
    "string": msg("text"),
    "boolean": msg("true or false"),
    "array": msg("a list"),
    "object": msg("a mapping"),
    "null": msg("null"),
}
_YES = {"yes": "true", "on": "true", "y": "true", "true": "true", "1": "true"}
_NO = {"no": "false", "off": "false", "n": "false", "false": "false", "0": "false"}
_number = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?\Z").match
_suffixed = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmMbBgG])\Z").match
_FACTORS = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


def scalar(value: Any) -> str:
    """A value as it is typed in a spec; plain words need no quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]*", value):
        return value
    return show(value)


def expected(types: Sequence[str]) -> Message:
    """The kinds that a word takes, as part of a sentence."""
    kinds = [_KINDS.get(kind, msg("a value")) for kind in types] or [msg("a value")]
    return reduce(lambda first, second: msg("{first} or {second}", first=first, second=second), kinds)


def example_value(schema: Mapping[str, Any]) -> str | None:
    """A value that the schema takes, as it is typed; None where nothing simple will do."""
    types = schema.get("type", ())
    if "const" in schema:
        return scalar(schema["const"])
    if schema.get("examples"):
        return scalar(schema["examples"][0])
    if schema.get("default") is not None:
        return scalar(schema["default"])
    if schema.get("enum"):
        return scalar(schema["enum"][0])
    if "minimum" in schema and schema["minimum"] > 0:
        return scalar(schema["minimum"])
    if "boolean" in types:
        return "true"
    if "object" in types and schema.get("required") == ["type"]:
        kind = example_value(schema.get("properties", {}).get("type", {}))
        return f"{{type: {kind}}}" if kind else None
    return None


def example_line(name: str, schema: Mapping[str, Any]) -> str:
    """`name: value` with a value that the schema takes, or `name:` where it takes lines below."""
    value = example_value(schema)
    return f"{name}: {value}" if value is not None else f"{name}:"


def wrong_type(name: str, types: Sequence[str], value: Any, schema: Mapping[str, Any]) -> tuple[Message, Message]:
    """What is wrong with a value of the wrong kind, and what to type."""
    wanted = expected(types)
    if value is None:
        return msg("is empty, but must be {expected}", expected=wanted), _fill(name, types, schema)
    what = msg("must be {expected}, not {value}", expected=wanted, value=show(value))
    fix = _converted(name, types, value, schema)
    if fix is None:
        example = example_value(schema)
        if len(schema.get("enum", ())) > 1:
            fix = msg("Type one of: {choices}", choices=", ".join(scalar(choice) for choice in schema["enum"]))
        elif example is None:
            fix = msg("Type {expected}", expected=wanted)
        else:
            fix = msg("Type {expected}, for example {example}", expected=wanted, example=_line(name, example))
    return what, fix


def _fill(name: str, types: Sequence[str], schema: Mapping[str, Any]) -> Message:
    """What to type where nothing, or null, stands."""
    if "object" in types:
        if schema.get("examples"):
            return msg("Type a value, for example {example}", example=example_line(name, schema))
        if not name:
            return msg("Write 'key: value' after the dash, or delete the dash")
        if schema.get("required") or schema.get("minProperties"):
            return msg("Write the words of {name} below it, indented", name=name)
        return msg("Type {example}, or delete the line", example=f"{name}: {{}}")
    if "array" in types:
        return msg("Add entries below {name}, each beginning with a dash", name=name)
    if schema.get("default") is not None:
        default = scalar(schema["default"])
        return msg("Delete the line, which gives {example}, or type a value", example=_line(name, default))
    example = example_value(schema)
    if example is not None:
        return msg("Type a value, for example {example}", example=_line(name, example))
    return msg("Type {expected}", expected=expected(types))


def _converted(name: str, types: Sequence[str], value: Any, schema: Mapping[str, Any]) -> Message | None:
    """What the value would be if it were of a kind that the word takes; None where that can't be said."""
    for text, meant in _candidates(types, value):
        if _takes(schema, meant):
            return _type(name, text)
    if "object" in types:
        return _mapping(name, value, schema)
    if "array" in types and isinstance(value, Mapping):
        return msg("Put a dash and a space before each entry of {name}", name=name)
    return None


def _candidates(types: Sequence[str], value: Any) -> Iterator[tuple[str, Any]]:
    """(text, value) of what a value of the wrong kind may have been meant as."""
    if isinstance(value, float) and "integer" in types and abs(value) < 1e18:
        yield str(round(value)), round(value)
    if isinstance(value, str) and ("integer" in types or "number" in types):
        number = _as_number(value, whole="number" not in types)
        if number is not None:
            yield number, int(number) if re.fullmatch(r"[-+]?[0-9]+", number) else float(number)
    if "boolean" in types and isinstance(value, (str, int)) and not isinstance(value, bool):
        word = _YES.get(str(value).lower()) or _NO.get(str(value).lower())
        if word:
            yield word, word == "true"
    if "string" in types and isinstance(value, (bool, int, float)):
        if value is False:
            # YAML's other words for false may have been meant as the name of nothing.
            yield "none", "none"
        yield f'"{show(value)}"', show(value)
    if "array" in types and isinstance(value, (str, int, float)):
        yield f"[{scalar(value)}]", [value]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, int, float)):
        yield scalar(value[0]), value[0]


def _takes(schema: Mapping[str, Any], value: Any) -> bool:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema).is_valid(value)


def _mapping(name: str, value: Any, schema: Mapping[str, Any]) -> Message | None:
    chooser = next((word for word in ("type", "template") if word in schema.get("properties", {})), None)
    if isinstance(value, str) and chooser:
        return _type(name, f"{{{chooser}: {scalar(value)}}}" if name else f"{chooser}: {scalar(value)}")
    if not name:
        return msg("Write 'key: value' after the dash, or delete the dash")
    if isinstance(value, list):
        return msg("Delete the dashes or brackets, so that {name} holds 'key: value' lines", name=name)
    return msg("Write the words of {name} below it, indented", name=name)


def _as_number(text: str, whole: bool) -> str | None:
    """The number that a text was meant to be, as it is typed."""
    plain = text.strip().replace("_", "").replace(",", "").replace(" ", "")
    if len(plain) > 40:
        return None
    suffixed = _suffixed(plain)
    if suffixed:
        number = float(suffixed.group(1)) * _FACTORS[suffixed.group(2).lower()]
        return str(round(number)) if number.is_integer() or whole else None
    if not _number(plain):
        return None
    number = float(plain)
    if not whole and re.search(r"[.eE]", plain):
        return plain
    return str(round(number)) if number.is_integer() and abs(number) < 2**53 else plain if not whole else None


def _type(name: str, value: str) -> Message:
    return msg("Type {example}", example=_line(name, value))


def _line(name: str, value: str) -> str:
    return f"{name}: {value}" if name else value
