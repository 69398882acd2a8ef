"""What differs between two models: in their architecture, not in their text.

Names of templates, the order of words, comments, expressions and defaults written out make no difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Literal

from eulerstack.ir.printer import to_data
from eulerstack.ir.types import ModelIR


@dataclass(frozen=True)
class FieldChange:
    """A value that differs; on the side where there is none it is MISSING."""

    path: str
    before: Any
    after: Any


class _Missing:
    """What stands for a value that one side does not have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
Span = tuple[int, int]


@dataclass(frozen=True)
class StageChange:
    """Stages that differ in the same way.

    `before` and `after` are the first and the last index of each run of them, empty where stages were added or removed.
    `fields` says what differs in each changed one, and what an added or removed one is made of ("mixer", "ffn", …).
    """

    kind: Literal["changed", "added", "removed"]
    before: tuple[Span, ...]
    after: tuple[Span, ...]
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class Difference:
    """Everything that differs between two models; false when nothing does."""

    fields: tuple[FieldChange, ...]
    stages: tuple[StageChange, ...]

    def __bool__(self) -> bool:
        return bool(self.fields or self.stages)


def diff(before: ModelIR, after: ModelIR) -> Difference:
    """What turns `before` into `after`."""
    old, new = to_data(before), to_data(after)
    old_stages, new_stages = _stages(old), _stages(new)
    for data in (old, new):
        del data["layers"], data["blocks"]
    return Difference(tuple(_changes(old, new)), tuple(_stage_changes(old_stages, new_stages)))


def _stages(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages with their layers written out, without the names of templates."""
    blocks = [{part: value for part, value in block.items() if part != "template"} for block in data["blocks"]]

    def written_out(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: [blocks[index] for index in item] if key == "layers" else written_out(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [written_out(item) for item in value]
        return value

    return [blocks[stage] if isinstance(stage, int) else written_out(stage) for stage in data["layers"]]


def _changes(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """The values that differ, at the deepest path where both sides have a mapping or lists of one length.

    Of two primitives of different types only the words that both have are compared: the others go with the type.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        other_type = before.get("type") != after.get("type")
        for key in [*before, *(key for key in after if key not in before)]:
            # What a primitive is given stands beside its type in a spec.
            below = path if key == "params" else f"{path}.{key}" if path else key
            one, other = before.get(key, MISSING), after.get(key, MISSING)
            if key == "params" and other_type and isinstance(one, Mapping) and isinstance(other, Mapping):
                shared = one.keys() & other.keys()
                one, other = ({word: side[word] for word in side if word in shared} for side in (one, other))
            yield from _changes(one, other, below)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changes(one, other, f"{path}[{index}]")
    elif before != after:
        yield FieldChange(path, before, after)


def _stage_changes(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[StageChange]:
    """Stacks of one depth are compared stage by stage; of others the longest common runs stay in place."""
    found: dict[Any, StageChange] = {}
    if len(before) == len(after):
        pairs = [("replace", 0, len(before), 0, len(after))]
    else:
        old_keys, new_keys = ([json.dumps(stage, sort_keys=True) for stage in stages] for stages in (before, after))
        matcher = SequenceMatcher(None, old_keys, new_keys, autojunk=False)
        pairs = [_at_the_end(*pair, old_keys, new_keys) for pair in matcher.get_opcodes()]
    for kind, old, old_end, new, new_end in pairs:
        if kind == "equal":
            continue
        common = min(old_end - old, new_end - new)
        for index in range(common):
            fields = tuple(_changes(before[old + index], after[new + index]))
            if fields:
                _note(found, StageChange("changed", (_one(old + index),), (_one(new + index),), fields))
        for index in range(old + common, old_end):
            _note(found, StageChange("removed", (_one(index),), (), _made_of(before[index], False)))
        for index in range(new + common, new_end):
            _note(found, StageChange("added", (), (_one(index),), _made_of(after[index], True)))
    return list(found.values())


def _at_the_end(
    kind: str, old: int, old_end: int, new: int, new_end: int, before: list[str], after: list[str]
) -> tuple[str, int, int, int, int]:
    """Of a run of equal stages that grew or shrank, the last ones are those that were added or removed."""
    if kind == "delete":
        while old_end < len(before) and before[old] == before[old_end]:
            old, old_end = old + 1, old_end + 1
    if kind == "insert":
        while new_end < len(after) and after[new] == after[new_end]:
            new, new_end = new + 1, new_end + 1
    return kind, old, old_end, new, new_end


def _one(index: int) -> Span:
    return index, index


def _note(found: dict[Any, StageChange], change: StageChange) -> None:
    """Joins a change with those of the same kind that are there."""
    key = (change.kind, repr(change.fields))
    known = found.get(key)
    if known is not None:
        change = replace(known, before=_joined(known.before, change.before), after=_joined(known.after, change.after))
    found[key] = change


def _joined(spans: tuple[Span, ...], more: tuple[Span, ...]) -> tuple[Span, ...]:
    if spans and more and spans[-1][1] + 1 == more[0][0]:
        return (*spans[:-1], (spans[-1][0], more[0][1]))
    return spans + more


def _made_of(stage: Mapping[str, Any], added: bool) -> tuple[FieldChange, ...]:
    """The types of the primitives of a stage that only one side has."""
    return tuple(
        FieldChange(part, MISSING, node["type"]) if added else FieldChange(part, node["type"], MISSING)
        for part, node in stage.items()
        if isinstance(node, Mapping) and "type" in node
    )
