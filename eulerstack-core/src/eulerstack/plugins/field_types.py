"""Whether a declaration's fields hold what their annotations say; a stranger's may hold anything."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Check = Callable[[Any], bool]


def wrong_fields(item: Any) -> Iterator[tuple[str, str, str]]:
    """(field, what it holds, what it should hold) of each field of a dataclass that contradicts its annotation."""
    for name, check, hint in _checks(item.__class__):
        value = getattr(item, name)
        if not check(value):
            yield name, f"{value!r:.80}", hint


def conforms(value: Any, hint: Any) -> bool:
    """Whether `value` is what the annotation `hint` says, as far as that shows without calling anything.

    A truth value is no number. Of mappings the keys are looked at, of other containers than tuples and of callables
    nothing. What an annotation means that no class stands for, as a type variable, doesn't show.
    """
    return _check_of(hint)(value)


@cache
def _checks(declaration: type) -> tuple[tuple[str, Check, str], ...]:
    hints = get_type_hints(declaration)
    return tuple((each.name, _check_of(hints[each.name]), str(each.type)) for each in fields(declaration))


@cache
def _check_of(hint: Any) -> Check:
    """The question that an annotation asks, made once: prices are looked at each time that a model is priced."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin in (Union, types.UnionType):
        either = tuple(map(_check_of, inner))
        return lambda value: any(check(value) for check in either)
    if origin is Literal:
        return lambda value: any(value is each or (type(value) is type(each) and value == each) for each in inner)
    if origin is tuple:
        if inner[1:] == (...,):
            every = _check_of(inner[0])
            return lambda value: isinstance(value, tuple) and all(map(every, value))
        parts = tuple(map(_check_of, inner))
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(check(each) for check, each in zip(parts, value, strict=True))
        )
    if origin is collections.abc.Callable:
        return callable
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys = _check_of(inner[0] if inner else Any)
        return lambda value: isinstance(value, Mapping) and all(map(keys, value))
    if hint is None or hint is type(None):
        return lambda value: value is None
    if hint in (int, float):
        return lambda value: isinstance(value, hint) and not isinstance(value, bool)
    kind = origin or hint
    try:
        isinstance(None, kind)
    except TypeError:
        return lambda value: True
    return lambda value: isinstance(value, kind)
