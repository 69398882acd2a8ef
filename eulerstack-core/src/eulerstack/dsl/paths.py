"""How a place in a spec and a value from it are written in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

Path = tuple[str | int, ...]

RESERVED_KEY = r"^(?:experimental|future|vendor\.[A-Za-z0-9_-]+)\.[A-Za-z0-9_.-]+$"
_reserved = re.compile(RESERVED_KEY).match
_plain_key = re.compile(r"[\w+-][\w.+-]{0,99}\Z").match
_layers = re.compile(r"layers\[(\d+)\.\.(\d+)\]\.(.*)", re.DOTALL).fullmatch
_SHOWN_CHARACTERS = 60


def is_reserved(key: str) -> bool:
    """Whether a key lies in a reserved namespace: `experimental.x`, `future.x` or `vendor.<name>.x`."""
    return _reserved(key) is not None


def dotted(path: Sequence[str | int]) -> str:
    """The text form of a path: ("layer_schedule", 0, "template") is "layer_schedule[0].template"."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(("." if parts else "") + key_text(part))
    return "".join(parts)


def plain(path: Sequence[str | int]) -> str:
    """`dotted`, but with every key as it is, however long or unusual: the form that the IR gives to paths."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def layers_path(first: int, last: int, rest: str) -> str:
    """The path in an IR of a key in the schedule entry that became the layers `first` to `last`."""
    return f"layers[{first}..{last}].{rest}"


def parse_layers_path(path: str) -> tuple[int, int, str] | None:
    """(first, last, rest) of a `layers_path`, or None for any other path."""
    match = _layers(path)
    return (int(match[1]), int(match[2]), match[3]) if match else None


def key_text(key: str) -> str:
    """A key as it stands in a path; unusual keys are quoted and shortened, so that they fit one line."""
    return key if _plain_key(key) else show(key)


def parent(path: str) -> str:
    """The path one step up; "" when there is none."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def show(value: Any) -> str:
    """A value as one would type it, on one line, at most 60 characters, without control characters."""
    text = shown_in_full(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def shown_in_full(value: Any) -> str:
    """A value in YAML's flow form, which JSON is, with plain words unquoted in lists of choices."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**_SHOWN_CHARACTERS:
        return f"10**{value.bit_length() * 3 // 10}"
    if isinstance(value, (str, bool, int, float)) or value is None:
        text = json.dumps(value, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(value)
    if isinstance(value, (list, tuple)):
        items = [shown_in_full(item) for item in value[:20]]
        return "[" + ", ".join(items) + (", …" if len(value) > 20 else "") + "]"
    if isinstance(value, dict):
        pairs = [f"{key_text(str(key))}: {shown_in_full(item)}" for key, item in list(value.items())[:20]]
        return "{" + ", ".join(pairs) + (", …" if len(value) > 20 else "") + "}"
    return type(value).__name__
