"""Canonical YAML text of plain data: the same data, the same bytes, readable by YAML 1.1 and 1.2 readers alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

# What any reader takes for a string without quotes; words that some reader takes for something else are excluded.
_PLAIN = re.compile(r"(?!\d)[A-Za-z_][A-Za-z0-9_./-]*")
_SPECIAL = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LINE = 100


def yaml_text(data: Mapping[str, Any]) -> str:
    """`data` as a block-style document that ends in a newline; raises ValueError for NaN and infinities."""
    return "\n".join(_mapping(data, "")) + "\n"


def _mapping(data: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry(f"{indent}{scalar(key)}:", value, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """The lines of one value, the first of which starts with `head`."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, f"{indent}  ")
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        yield head
        for item in value:
            yield from _item(item, f"{indent}  ")
    elif isinstance(value, (list, tuple)):
        yield from _flow_list(head, [scalar(item) for item in value], f"{indent}  ")
    else:
        yield f"{head} {'{}' if isinstance(value, Mapping) else scalar(value)}"


def _item(value: Any, indent: str) -> Iterator[str]:
    """The lines of one item of a block list; a mapping starts beside the dash."""
    if isinstance(value, Mapping) and value:
        first, *rest = _mapping(value, f"{indent}  ")
        yield f"{indent}- {first[len(indent) + 2 :]}"
        yield from rest
    else:
        yield from _entry(f"{indent}-", value, indent)


def _flow_list(head: str, items: list[str], indent: str) -> Iterator[str]:
    line = f"{head} ["
    for index, item in enumerate(items):
        piece = item + ("," if index < len(items) - 1 else "")
        if len(line) + len(piece) > _LINE and not line.endswith("["):
            yield line
            line = f"{indent}{piece}"
        else:
            line += piece if line.endswith("[") else f" {piece}"
    yield f"{line}]"


def scalar(value: Any) -> str:
    """One scalar; a float always shows a point, so that no reader takes it for a string or an integer."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _SPECIAL:
        return value
    return f'"{"".join(_character(character) for character in value)}"'


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError("a spec holds finite numbers only")
    mantissa, exponent, power = repr(value).partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + exponent + power


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0x20 <= code < 0x7F or (code >= 0xA1 and character.isprintable() and code != 0xFEFF):
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
