"""Where a path of a spec lies in the language."""

from __future__ import annotations

from collections.abc import Sequence


def place_of(path: Sequence[str | int]) -> str:
    """The place of a path in the language: names of templates are `<name>`, indices of lists `[]`."""
    place = ""
    for index, part in enumerate(path):
        if isinstance(part, int):
            place += "[]"
        elif index == 1 and path[0] == "layer_templates":
            place += ".<name>"
        else:
            place += f".{part}" if place else part
    return place
