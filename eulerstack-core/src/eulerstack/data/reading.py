"""The documents of JSON-lines files: one JSON object a line, its text under one key.

A file is read line by line, so its size doesn't matter. Lines of nothing but spaces hold no document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eulerstack.errors import Diagnostic, Location, Message, ValidationError, msg

SEE = "reference/sanity.md#preparing-data"
# Where so many lines are wrong, it is not the lines.
MOST_FAULTS = 100


class Fault(Exception):
    """What is wrong with one line, from which column on."""

    def __init__(self, column: int, what: Message, fix: Message):
        super().__init__(what)
        self.column, self.what, self.fix = column, what, fix


def documents(files: Iterable[str | Path], field: str = "text") -> Iterator[str]:
    """The texts in order, until the first bad line; then the rest is read for further bad ones.

    Errors: ValidationError with the place of every bad line, of the first hundred where there are more, and for a file
    that can't be read.
    """
    faults: list[Diagnostic] = []
    for file in files:
        try:
            with open(file, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        text = text_of(line, field)
                    except Fault as fault:
                        location = Location(str(file), number, fault.column)
                        faults.append(Diagnostic("ValidationError", fault.what, fault.fix, SEE, "", location))
                        if len(faults) == MOST_FAULTS:
                            raise ValidationError(faults) from None
                        continue
                    if text is not None and not faults:
                        yield text
        except OSError as error:
            what = msg("the file can't be read: {error}", error=error.strerror or str(error))
            fix = msg("name a file of JSON lines")
            faults.append(Diagnostic("ValidationError", what, fix, SEE, str(file)))
    if faults:
        raise ValidationError(faults)


def text_of(line: bytes, field: str) -> str | None:
    """The text of one line, None where the line is empty; raises a Fault."""
    if not line.strip():
        return None
    sample = json.dumps({field: "…"}, ensure_ascii=False)
    rewrite = msg("write one object a line: {sample}", sample=sample)
    try:
        data: Any = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        raise Fault(column, msg("the line is not UTF-8 text"), msg("save the file as UTF-8")) from None
    # Beside what is no JSON, numbers of thousands of digits, and lists in lists without end.
    except (ValueError, RecursionError) as error:
        raise Fault(getattr(error, "colno", 1), msg("the line is not JSON"), rewrite) from None
    if not isinstance(data, dict):
        raise Fault(1, msg("the line is no JSON object"), rewrite)
    if field not in data:
        fix = msg("name the key that holds the text: {option}", option=f"--field {next(iter(data), 'NAME')}")
        raise Fault(1, msg("there is no key {key}", key=repr(field)), fix)
    text = data[field]
    if not isinstance(text, str):
        raise Fault(1, msg("the value of {key} is not text", key=repr(field)), rewrite)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        what = msg("the value of {key} holds half a surrogate pair, which is no character", key=repr(field))
        raise Fault(1, what, msg("leave the character out")) from None
    return text
