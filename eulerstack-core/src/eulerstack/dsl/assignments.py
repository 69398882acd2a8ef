"""Values given beside a spec's text: `--set model.d_model=512`.

An assignment replaces what stands at its path, or adds it; the spec is then read as if it had been written so. Its
value is YAML in one line, expressions included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from eulerstack.dsl.compose import Composer, TooMuch
from eulerstack.dsl.limits import MAX_DEPTH
from eulerstack.dsl.paths import Path, dotted, is_reserved, key_text
from eulerstack.dsl.syntax import add_syntax_error, check_characters
from eulerstack.errors import Collector, Location, msg

SEE = "reference/cli.md#set"
_step = re.compile(r"\.?([^.\[\]]+)|\[(\d{1,9})\]")


class Assignment:
    """`path=value` as it was typed.

    place  the name that stands for a file in messages about it: "--set model.d_model"
    """

    def __init__(self, text: str):
        self.target, self.separator, self.value = text.partition("=")
        self.target = self.target.strip()
        self.place = f"--set {self.target}"

    def steps(self) -> list[str | int] | None:
        """The path's parts, None when it is not a path: "a.b[0].c" is ["a", "b", 0, "c"]."""
        steps: list[str | int] = []
        end = 0
        for match in _step.finditer(self.target):
            if match.start() != end:
                return None
            end = match.end()
            steps.append(match[1] if match[2] is None else int(match[2]))
        return steps if steps and end == len(self.target) and isinstance(steps[0], str) else None


def assign(
    raw: dict[str, Any],
    marks: dict[Path, tuple[int, int]],
    key_marks: dict[Path, tuple[int, int]],
    files: dict[Path, str],
    assignments: Sequence[str],
    problems: Collector,
) -> None:
    """Changes the data of a spec as written, and the places of its parts; what can't be assigned is recorded.

    `files` is given the name that stands for a file, for every path whose place is not in the spec's own text.
    """
    for text in assignments:
        assignment = Assignment(text)
        value, found = _value(assignment, problems)
        path = _target(raw, assignment, problems)
        if path is None or not found:
            continue
        holder: Any = raw
        for depth, part in enumerate(path[:-1]):
            if isinstance(holder, dict) and holder.get(str(part)) is None:
                holder[str(part)] = {}
                _mark(path[: depth + 1], marks, key_marks, files, assignment.place)
            holder = holder[part]
        holder[path[-1]] = value
        for places in (marks, key_marks, files):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        _mark_all(value, path, marks, key_marks, files, assignment.place)


def _value(assignment: Assignment, problems: Collector) -> tuple[Any, bool]:
    """(the value, whether there is one)."""
    place, text = assignment.place, assignment.value
    if not assignment.separator:
        path, colon, meant = (part.strip() for part in assignment.target.partition(":"))
        option = f"--set {path or 'model.d_model'}={meant if colon and meant else 512}"
        fix = msg("use {option}", option=option)
        problems.add("", msg("an assignment has the form path=value"), fix, SEE, Location(place, 1, 1))
        return None, False
    count = len(problems.diagnostics)
    root = None
    if check_characters(text, place, problems):
        try:
            root = Composer(text, place, problems).root()
        except yaml.YAMLError as error:
            add_syntax_error(error, text, place, problems)
        except TooMuch:
            pass
    if len(problems.diagnostics) > count:
        return None, False
    return (None if root is None else _plain(root)), True


def _plain(node: Any) -> Any:
    if node.kind == "mapping":
        return {key: _plain(entry.node) for key, entry in node.value.items()}
    if node.kind == "sequence":
        return [_plain(child) for child in node.value]
    return node.value


def _target(raw: dict[str, Any], assignment: Assignment, problems: Collector) -> Path | None:
    """The path in the data that an assignment means; None when there can be none, which is then recorded."""
    steps = assignment.steps()
    if steps is None:
        what = msg("{path} is not a path", path=key_text(assignment.target))
        fix = msg("Type keys with dots between them and [number] for an element of a list, as in {path}",
                  path="layer_schedule[0].repeat")  # fmt: skip
        problems.add("", what, fix, SEE, Location(assignment.place, 1, 1))
        return None
    if len(steps) > MAX_DEPTH:
        what = msg("values are nested more than {limit} deep", limit=MAX_DEPTH)
        fix = msg("Nest at most {limit} levels", limit=MAX_DEPTH)
        problems.add("", what, fix, "reference/errors.md#too-large", Location(assignment.place, 1, 1))
        return None
    path: list[str | int] = []
    holder: Any = raw
    while steps:
        step = steps.pop(0)
        if isinstance(step, str) and (holder is None or isinstance(holder, dict)):
            step = _key(step, steps, holder or {})
            holder = (holder or {}).get(step)
        elif isinstance(step, int) and isinstance(holder, list) and step < len(holder):
            holder = holder[step]
        else:
            _no_such_place(dotted(path), step, holder, assignment, problems)
            return None
        path.append(step)
    return tuple(path)


def _key(first: str, rest: list[str | int], holder: dict[str, Any]) -> str:
    """A key at the beginning of the remaining steps: one with dots in it, where there is one or it must be one."""
    names = [first]
    for step in rest:
        if not isinstance(step, str):
            break
        names.append(step)
    for count in range(len(names), 1, -1):
        key = ".".join(names[:count])
        if key in holder or (count == len(names) and is_reserved(key)):
            del rest[: count - 1]
            return key
    return first


def _no_such_place(path: str, step: str | int, holder: Any, assignment: Assignment, problems: Collector) -> None:
    if isinstance(holder, list):
        what = msg("the elements of this list are numbered from 0 to {last}", last=len(holder) - 1)
        fix = msg("Type {path}", path=f"{path}[0]")
    else:
        what = msg("this is not a list") if isinstance(step, int) else msg("this has no keys")
        fix = msg("Assign all of it: {assignment}", assignment=f"--set {path}=…")
    problems.add(path, what, fix, SEE, Location(assignment.place, 1, 1))


def _mark(path: Path, marks: Any, key_marks: Any, files: dict[Path, str], place: str) -> None:
    marks[path] = (1, 1)
    files[path] = place
    if isinstance(path[-1], str):
        key_marks[path] = (1, 1)


def _mark_all(value: Any, path: Path, marks: Any, key_marks: Any, files: dict[Path, str], place: str) -> None:
    _mark(path, marks, key_marks, files, place)
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in below:
        _mark_all(item, (*path, part), marks, key_marks, files, place)
