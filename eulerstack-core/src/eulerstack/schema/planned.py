"""Words of the language that this version does not implement.

They are refused by name, never accepted and ignored. A later version that implements a word deletes its line here.
"""

from __future__ import annotations

from collections.abc import Sequence

PLANNED_TYPES: dict[str, tuple[str, ...]] = {}

PLANNED_WORDS: dict[str, tuple[str, ...]] = {}


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


def is_planned_word(path: Sequence[str | int], word: str) -> bool:
    """Whether `word` may stand in the mapping at `path` in a later version."""
    return word in PLANNED_WORDS.get(place_of(path), ())


def is_planned_type(kind: str, name: str) -> bool:
    """Whether `name` is a type of this kind in a later version."""
    return name in PLANNED_TYPES.get(kind, ())
