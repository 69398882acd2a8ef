"""Whether a declaration's fields hold what their annotations say; a stranger's may hold anything."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def wrong_fields(item: Any) -> Iterator[tuple[str, str, str]]:
    """(field, what it holds, what it should hold) of each field of a dataclass that contradicts its annotation."""
    hints = _hints(item.__class__)
    for each in fields(item):
        value = getattr(item, each.name)
        if not conforms(value, hints[each.name]):
            yield each.name, f"{value!r:.80}", str(each.type)


@cache
def _hints(declaration: type) -> dict[str, Any]:
    return get_type_hints(declaration)


def conforms(value: Any, hint: Any) -> bool:
    """Whether `value` is what the annotation `hint` says, as far as that shows without calling anything.

    A truth value is no number. Of mappings the keys are looked at, of callables nothing.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(conforms(value, each) for each in inner)
    if origin is Literal:
        return any(value is each or (type(value) is type(each) and value == each) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[1:] == (...,):
            return all(conforms(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(conforms, value, inner))
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(conforms(key, inner[0]) for key in value)
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, hint) and not isinstance(value, bool)
    return isinstance(value, hint)
