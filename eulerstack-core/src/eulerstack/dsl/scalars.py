"""What a plain YAML scalar means: the core schema of YAML 1.2, and no surprises beyond it.

`yes`, `no`, `on` and dates are text, `010` is ten, `1e-5` is a number. Infinities, not-a-number and numbers with more
digits than a spec can need are refused, because every number here is a size, a rate or a count.
"""

from __future__ import annotations

import math
import re
from typing import Any

from eulerstack.dsl.limits import MAX_NUMBER_CHARACTERS
from eulerstack.errors import Message, msg

_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NUMBER_STARTS = frozenset("+-.0123456789")
_decimal = re.compile(r"[-+]?[0-9]+\Z").match
_based = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z").match
_float = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z").match
_not_finite = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z").match

TAG_PREFIX = "tag:yaml.org,2002:"
SCALAR_TAGS = {TAG_PREFIX + name: name for name in ("str", "int", "float", "bool", "null")}


class ScalarError(Exception):
    """A scalar that stands for no value; `what` and `fix` say so to the user."""

    def __init__(self, what: Message, fix: Message, see: str):
        super().__init__(what, fix, see)
        self.what, self.fix, self.see = what, fix, see


def plain(text: str) -> Any:
    """The value of an unquoted scalar: None, a bool, an int, a float or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _decimal(text):
        _check_length(text)
        return int(text)
    if _based(text):
        _check_length(text)
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _float(text):
        _check_length(text)
        number = float(text)
        if math.isinf(number):
            raise _infinite(text)
        return number
    if _not_finite(text):
        raise _infinite(text)
    return text


def tagged(text: str, tag: str) -> Any:
    """The value of a scalar under one of YAML's own tags, as `SCALAR_TAGS` names them."""
    name = SCALAR_TAGS[tag]
    if name == "str":
        return text
    value: Any = plain(text) if text or name == "null" else text
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
    if not isinstance(value, types[name]) or (isinstance(value, bool) and name != "bool"):
        raise ScalarError(
            msg("the tag !!{tag} does not fit the value {value}", tag=name, value=text[:MAX_NUMBER_CHARACTERS]),
            msg("Delete the tag !!{tag}", tag=name),
            "reference/errors.md#tag",
        )
    return float(text) if name == "float" else value


def _check_length(text: str) -> None:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ScalarError(
            msg(
                "the number has {count} characters; {limit} is the limit", count=len(text), limit=MAX_NUMBER_CHARACTERS
            ),
            msg("Type a number of at most {limit} characters", limit=MAX_NUMBER_CHARACTERS),
            "reference/errors.md#number-size",
        )


def _infinite(text: str) -> ScalarError:
    return ScalarError(
        msg("{value} is not a finite number", value=text),
        msg("Type a finite number; where the word allows it, null means no limit"),
        "reference/errors.md#not-finite",
    )
