"""Reads a spec: YAML text to plain data that remembers where every part of it stands.

    load_source("model.yml")["model"]["d_model"], load_source("model.yml").locate("model.d_model")

Nothing is executed and nothing is fetched; whatever is not plain data is a located ValidationError, and all of them are
raised together.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from eulerstack.dsl.assignments import assign
from eulerstack.dsl.compose import Composer, Entry, Node, TooMuch
from eulerstack.dsl.files import fail, read_bytes, too_large, wide_encoding
from eulerstack.dsl.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_NUMBER_CHARACTERS
from eulerstack.dsl.paths import Path, dotted, parent, plain, show
from eulerstack.dsl.resolve import resolve
from eulerstack.dsl.syntax import add_syntax_error, check_characters, check_texts
from eulerstack.errors import Collector, Location, Message, msg

Mark = tuple[int, int]


class Spec(dict[str, Any]):
    """A spec after `let` and expressions: a plain mapping of JSON values that knows where its parts stand.

    file   as the user named it, "" for a spec that was made in Python
    text   the file's text
    raw    the data as written, before expressions
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        file: str = "",
        text: str = "",
        raw: Mapping[str, Any] | None = None,
        marks: Mapping[Path, Mark] | None = None,
        key_marks: Mapping[Path, Mark] | None = None,
        files: Mapping[Path, str] | None = None,
    ):
        super().__init__(data)
        self.file, self.text = file, text
        self.raw: Mapping[str, Any] = data if raw is None else raw
        self._marks: Mapping[Path, Mark] = marks or {}
        self._key_marks: Mapping[Path, Mark] = key_marks or {}
        # What stands for the file where a part does not come from the spec's own text.
        self._files: Mapping[Path, str] = files or {}
        self._by_text: dict[str, Location] | None = None

    @property
    def assigned(self) -> bool:
        """Whether some part does not come from the spec's own text."""
        return bool(self._files)

    @property
    def positions(self) -> dict[Path, Location]:
        """The place of every part by its path: of a scalar its value's, of a mapping or list that of its key."""
        return {path: self._location(path, mark) for path, mark in self._marks.items()}

    @property
    def key_positions(self) -> dict[Path, Location]:
        """The place of every key, by the path of its value."""
        return {path: self._location(path, mark) for path, mark in self._key_marks.items()}

    def locate(self, path: str) -> Location | None:
        """The place of a path ("layer_schedule[0].template"), or of its nearest ancestor; None without a file."""
        if not self._marks:
            return None
        if self._by_text is None:
            locations = self.positions
            self._by_text = {plain(part): location for part, location in locations.items()}
            self._by_text |= {dotted(part): location for part, location in locations.items()}
        while path not in self._by_text:
            path = parent(path)
        return self._by_text[path]

    def locate_key(self, path: Path) -> Location | None:
        """The place of the key whose value has this path; None where there is none."""
        mark = self._key_marks.get(path)
        return self._location(path, mark) if mark else None

    def _location(self, path: Path, mark: Mark) -> Location:
        return Location(self._files.get(path, self.file), *mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (dict(self), self.file, self.text, self.raw, self._marks, self._key_marks, self._files)


def load_source(path: str | os.PathLike[str], assignments: Sequence[str] = ()) -> Spec:
    """Reads a spec from a UTF-8 file. Raises ValidationError for a file that can't be read or isn't a spec's text.

    `assignments`, such as "model.d_model=512", change what the file says.
    """
    file = os.fspath(path)
    data = read_bytes(file)
    problems = Collector("ValidationError")
    if encoding := wide_encoding(data):
        what = msg("the file is in {encoding}, not UTF-8", encoding=encoding)
        fail(file, what, msg("Save the file as UTF-8"), "reference/errors.md#encoding")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[line_start : error.start].decode("utf-8-sig", "replace")) + 1
        problems.add(
            "",
            msg("the byte 0x{byte} is not UTF-8", byte=f"{data[error.start]:02x}"),
            msg("Save the file as UTF-8"),
            "reference/errors.md#encoding",
            Location(file, data.count(b"\n", 0, error.start) + 1, column),
        )
        problems.raise_if_any()
    return parse_text(text, file, assignments)


def parse_text(text: str, file: str, assignments: Sequence[str] = ()) -> Spec:
    """A spec from its text; `file` is the name that messages show. Raises ValidationError with every problem found."""
    text = text.removeprefix("\ufeff")
    problems = Collector("ValidationError")
    if len(text) > MAX_BYTES:
        too_large(file)
    root: Node | None = None
    if check_characters(text, file, problems):
        try:
            root = Composer(text, file, problems).root()
        except yaml.YAMLError as error:
            add_syntax_error(error, text, file, problems)
        except TooMuch:
            pass
    if root is None or root.kind != "mapping":
        if not problems.diagnostics:
            _not_a_mapping(root, file)
        problems.raise_if_any()
        raise AssertionError("a document without a mapping has a problem")
    marks: dict[Path, Mark] = {}
    key_marks: dict[Path, Mark] = {}
    files: dict[Path, str] = {}
    raw = _data(root, (), (root.line, root.column), marks, key_marks)
    if assignments:
        assign(raw, marks, key_marks, files, assignments, problems)
    bare = Spec(raw, file, text, raw, marks, key_marks, files)
    problems.locate = bare.locate
    check_texts(raw, problems)
    data = resolve(raw, problems, _offset_locator(bare))
    problems.raise_if_any()
    return Spec(data, file, text, raw, marks, key_marks, files)


def as_spec(data: Mapping[str, Any]) -> Spec:
    """A spec made in Python: plain JSON values, with its expressions evaluated. A Spec comes back as it is.

    Raises ValidationError for values that a spec's text could not have held.
    """
    if isinstance(data, Spec):
        return data
    problems = Collector("ValidationError")
    copier = _Plain(problems)
    raw = copier.copy(data, (), 0)
    problems.raise_if_any()
    check_texts(raw, problems)
    if not isinstance(raw, dict):
        fail("", msg("a spec must be a mapping, not {value}", value=show(raw)), _BEGIN, "reference/errors.md#top-level")
    resolved = resolve(raw, problems, lambda path, offset: None)
    problems.raise_if_any()
    return Spec(resolved, raw=raw)


_BEGIN = msg("Begin the file with: schema_version: 1")


def _not_a_mapping(root: Node | None, file: str) -> None:
    if root is None or (root.kind == "scalar" and root.value is None):
        fail(file, msg("the file is empty"), _BEGIN, "reference/errors.md#top-level")
    elif root.kind == "sequence":
        what = msg("a spec must be a mapping, not a list")
        fail(
            file,
            what,
            msg("Delete the dash before schema_version"),
            "reference/errors.md#top-level",
            (root.line, root.column),
        )
    else:
        what = msg("a spec must be a mapping, not {value}", value=show(root.value))
        fail(file, what, _BEGIN, "reference/errors.md#top-level", (root.line, root.column))


def _data(node: Node, path: Path, mark: Mark, marks: dict[Path, Mark], key_marks: dict[Path, Mark]) -> Any:
    """The plain data of a node, with the places of its parts entered under their paths."""
    marks[path] = mark
    if node.kind == "mapping":
        data: dict[str, Any] = {}
        entry: Entry
        for key, entry in node.value.items():
            below, child = (*path, key), entry.node
            key_marks[below] = (entry.line, entry.column)
            own_place = child.kind == "scalar" and not child.empty
            place = (child.line, child.column) if own_place else (entry.line, entry.column)
            data[key] = _data(child, below, place, marks, key_marks)
        return data
    if node.kind == "sequence":
        return [
            _data(child, (*path, index), (child.line, child.column), marks, key_marks)
            for index, child in enumerate(node.value)
        ]
    return node.value


def _offset_locator(spec: Spec) -> Callable[[Path, int], Location | None]:
    """Finds the place of a character inside a text value, where the value stands on one line as it is."""
    lines = spec.text.split("\n")

    def locate(path: Path, offset: int) -> Location | None:
        location = spec.locate(dotted(path))
        value: Any = spec.raw
        for part in path:
            value = value[part]
        if location is None or not isinstance(value, str):
            return location
        if location.file != spec.file:
            return Location(location.file, 1, location.column + offset)
        line = lines[location.line - 1] if location.line <= len(lines) else ""
        start = line.find(value, location.column - 1)
        if start < 0:
            return location
        return Location(location.file, location.line, start + 1 + offset)

    return locate


class _Plain:
    """Copies Python data, keeping only what a spec's text could have said."""

    def __init__(self, problems: Collector):
        self._problems = problems
        self._count = 0

    def copy(self, value: Any, path: Path, depth: int) -> Any:
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            self._add(
                path,
                msg("the spec holds more than {limit} values, or itself", limit=MAX_NODES),
                msg("Use repeat and layer_templates instead of writing layers out"),
                "reference/errors.md#too-large",
            )
            self._problems.raise_if_any()
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    what = msg("a key must be text, not {value}", value=show(key))
                    self._add(
                        path, what, msg('Put it in quotes: "{value}"', value=show(key)), "reference/errors.md#key-type"
                    )
            return {
                key: self.copy(item, (*path, key), depth + 1) for key, item in value.items() if isinstance(key, str)
            }
        if isinstance(value, (list, tuple)):
            return [self.copy(item, (*path, index), depth + 1) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            what = msg("{value} is not a finite number", value=str(value))
            fix = msg("Type a finite number; where the word allows it, null means no limit")
            self._add(path, what, fix, "reference/errors.md#not-finite")
        elif isinstance(value, int) and abs(value) >= 10**MAX_NUMBER_CHARACTERS:
            what = msg("a whole number here has more than {limit} digits", limit=MAX_NUMBER_CHARACTERS)
            fix = msg("Type a number of at most {limit} characters", limit=MAX_NUMBER_CHARACTERS)
            self._add(path, what, fix, "reference/errors.md#number-size")
        elif value is not None and type(value) not in (bool, int, float, str):
            what = msg("a value of type {type} can't stand in a spec", type=type(value).__name__)
            fix = msg("Use numbers, text, true, false, null, lists and mappings")
            self._add(path, what, fix, "reference/errors.md#wrong-type")
        return value

    def _add(self, path: Path, what: Message, fix: Message, see: str) -> None:
        self._problems.add(dotted(path), what, fix, see)
