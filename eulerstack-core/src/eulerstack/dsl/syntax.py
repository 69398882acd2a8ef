"""Turns what a YAML parser complains about into what a person did and should type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from eulerstack.dsl.paths import Path, dotted
from eulerstack.errors import Collector, Location, Message, msg

_SEE = "reference/errors.md#yaml-syntax"
# What libyaml says of signs that begin something else than a value: @ ` % | > & * ?
_BAD_BEGINNINGS = (
    "cannot start any token",
    "comment or line break",
    "alphabetic or numeric character",
    "whitespace or line break",
    "directive name",
    "mapping keys are not allowed",
)
_unprintable = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_unwritable = re.compile("[\x00\ud800-\udfff]")


def check_characters(text: str, file: str, problems: Collector) -> bool:
    """Records the first character that YAML forbids; True when there is none."""
    found = _unprintable.search(text)
    if not found:
        return True
    line = text.count("\n", 0, found.start()) + 1
    column = found.start() - text.rfind("\n", 0, found.start())
    problems.add(
        "",
        msg("the character U+{code} is not allowed in YAML", code=f"{ord(found.group()):04X}"),
        msg("Delete this character"),
        "reference/errors.md#encoding",
        Location(file, line, column),
    )
    return False


def check_texts(value: Any, problems: Collector, path: Path = ()) -> None:
    """Records texts and keys, however they were written, that no file name and no UTF-8 file could hold.

    These are U+0000, which YAML can spell, and halves of surrogate pairs, which only Python can.
    """
    if isinstance(value, str):
        _check_text(value, problems, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_text(key, problems, (*path, key))
            check_texts(item, problems, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_texts(item, problems, (*path, index))


def _check_text(text: str, problems: Collector, path: Path) -> None:
    if found := _unwritable.search(text):
        problems.add(
            dotted(path),
            msg("a text here holds the character U+{code}", code=f"{ord(found.group()):04X}"),
            msg("Delete this character"),
            "reference/errors.md#encoding",
        )


def add_syntax_error(error: yaml.YAMLError, text: str, file: str, problems: Collector) -> None:
    """Records where and why `text` stopped being YAML."""
    mark = getattr(error, "problem_mark", None)
    context_mark = getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    lines = re.split(r"\r\n|\n|\r", text)
    at = (mark.line, mark.column) if mark else (0, 0)
    begun = (context_mark.line, context_mark.column) if context_mark else at
    tab = _tab(lines, min(begun[0], at[0]), at[0])
    glued = _glued(lines, at[0]) if "mapping values" in problem or "expected ':'" in problem else None
    see = _SEE
    if glued:
        at = glued
        what, fix = msg("a space is missing after the colon"), msg("Type 'key: value', with a space after the colon")
    elif tab:
        at, see = tab, "reference/errors.md#tab"
        what, fix = msg("a tab stands in the indentation"), msg("Indent with spaces instead of tabs")
    elif "unexpected end of stream" in problem:
        at = begun
        what, fix = msg("the quotation mark opened here is never closed"), msg("Close it with the same mark")
    elif "',' or" in problem:
        what, fix, at = _flow(lines, at, begun, problem)
    elif "mapping values are not allowed" in problem:
        what = msg("a second colon on one line, or a line that is indented too far")
        fix = msg("Indent keys of one mapping alike, and put text that holds ': ' in quotes")
    elif "could not find expected ':'" in problem:
        what, fix = msg("a colon is missing after the key"), msg("Type 'key: value', with a space after the colon")
        at = begun
    elif "sequence entries are not allowed" in problem or "expected '-' indicator" in problem:
        what = msg("a list and a mapping are mixed in one block")
        fix = msg("Begin every line of a list with '- ', and indent it below its key")
    elif any(words in problem for words in _BAD_BEGINNINGS):
        at = begun
        what = msg("a value can't begin with {character}", character=_character(lines, at))
        fix = msg("Put the value in quotes")
    elif "unexpected ':'" in problem:
        what, fix = msg("a colon inside a word"), msg("Type a space after the colon, or put the word in quotes")
    elif "unknown escape" in problem:
        what, fix = msg("an unknown escape in double quotes"), msg("Use single quotes, or double the backslash")
    elif "expected <document start>" in problem:
        what = msg("something stands after the end of the spec")
        fix = msg("Delete it, or indent it so that it belongs to the block above")
    elif "tag" in problem:
        what, fix = msg("an undefined tag"), msg("Delete the word that begins with '!'")
        see = "reference/errors.md#tag"
    elif "expected key" in problem or "expected block end" in problem or "node content" in problem:
        what = msg("a key was expected here; the indentation or a bracket is wrong")
        fix = msg("Line this up with the keys of its block, as 'key: value', and close quotes and brackets")
    else:
        what, fix = msg("this is not YAML: {problem}", problem=problem), msg("Correct the line as YAML needs it")
    problems.add("", what, fix, see, Location(file, at[0] + 1, at[1] + 1))


def _flow(lines: list[str], at: tuple[int, int], begun: tuple[int, int], problem: str) -> tuple[Message, Message, Any]:
    """An inline collection that goes wrong: most often an unquoted expression or a bracket that was never closed."""
    line = lines[at[0]] if at[0] < len(lines) else ""
    if line[at[1] - 1 : at[1] + 1] == "${":
        expression = re.match(r"\$\{[^}]*\}?", line[at[1] - 1 :])
        shown = expression.group() if expression else "${"
        return (
            msg("an expression inside braces or brackets needs quotes"),
            msg('Type "{expression}"', expression=shown),
            (at[0], at[1] - 1),
        )
    bracket = "]" if "]" in problem else "}"
    return (
        msg("the bracket opened on line {line} is not closed by {bracket}", line=begun[0] + 1, bracket=bracket),
        msg("Type {bracket} at its end, and a comma between its items", bracket=bracket),
        begun,
    )


def _tab(lines: list[str], first: int, last: int) -> tuple[int, int] | None:
    """The first tab in the indentation of these lines, as (line, column) from 0."""
    for number in range(first, min(last + 1, len(lines))):
        indentation = lines[number][: len(lines[number]) - len(lines[number].lstrip(" \t"))]
        if "\t" in indentation:
            return number, indentation.index("\t")
    return None


def _glued(lines: list[str], line: int) -> tuple[int, int] | None:
    """Where a key is glued to its value ("d_model:2048") on this line or the one before it."""
    for number in (line - 1, line):
        found = re.match(r"\s*(?:- )?[A-Za-z_][\w.]*:(?=[^\s:/])", lines[number]) if 0 <= number < len(lines) else None
        if found:
            return number, found.end() - 1
    return None


def _character(lines: list[str], at: tuple[int, int]) -> str:
    line = lines[at[0]] if at[0] < len(lines) else ""
    return line[at[1] : at[1] + 1] or "?"
