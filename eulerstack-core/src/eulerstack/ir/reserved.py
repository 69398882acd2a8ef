"""Keys in reserved namespaces: taken out of a spec into one flat mapping, and put back where they were.

A reserved key is dotted and starts with `experimental.`, `future.` or `vendor.<name>.`. In the IR each stands under the
dotted path at which it was written, except that an entry of the schedule is named by the layers it became:
`layers[2..7].experimental.x` for the third to the eighth layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eulerstack.dsl.paths import is_reserved

_ENTRY = re.compile(r"\[(\d+)\]\.(.*)", re.DOTALL)
_INNER = re.compile(r"\.(?=(?:experimental|future)\..|vendor\.[^.]+\..)")


def take_out(data: Any, path: str = "") -> tuple[Any, dict[str, Any]]:
    """`data` without its reserved keys, and {dotted path: value} of them.

    The parameter block of a third party's type bears that type's name and stays; so does that of the embedding's
    `positional`.
    """
    found: dict[str, Any] = {}
    if isinstance(data, Mapping):
        kept = {}
        for key, value in data.items():
            inner = f"{path}.{key}" if path else str(key)
            chosen = data.get("positional" if path == "embedding" else "type")
            if is_reserved(str(key)) and key != chosen:
                found[inner] = value
                continue
            kept[key], below = take_out(value, inner)
            found.update(below)
        return kept, found
    if isinstance(data, (list, tuple)):
        items = []
        for index, value in enumerate(data):
            item, below = take_out(value, f"{path}[{index}]")
            items.append(item)
            found.update(below)
        return items, found
    return data, found


def put_back(spec: dict[str, Any], path: str, value: Any) -> None:
    """Writes `value` into `spec` at the dotted `path` under which `take_out` found it; makes mappings on the way."""
    for key in sorted(spec, key=len, reverse=True):
        rest = path[len(key) + 1 :]
        entry = _ENTRY.match(path[len(key) :]) if path.startswith(key) and isinstance(spec[key], list) else None
        if entry:
            put_back(spec[key][int(entry[1])], entry[2], value)
            return
        if path.startswith(f"{key}.") and isinstance(spec[key], dict) and _INNER.search(f".{rest}"):
            put_back(spec[key], rest, value)
            return
    if is_reserved(path):
        spec[path] = value
        return
    key, rest = path.split(".", 1)
    put_back(spec.setdefault(key, {}), rest, value)
