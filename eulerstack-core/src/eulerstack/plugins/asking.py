"""Asks a declaration's own functions, which may raise or answer anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from eulerstack.errors import CompatibilityError, Diagnostic, Location, msg
from eulerstack.plugins.faults import PLUGIN_ERRORS, reason_of
from eulerstack.plugins.field_types import conforms, wrong_fields
from eulerstack.plugins.primitive import Namespace, Primitive

if TYPE_CHECKING:
    from eulerstack.plugins.manager import Registry

Answer = TypeVar("Answer")


def ask(registry: Registry, primitive: Primitive, expected: type[Answer], function: Callable[..., Any] | None,
        *arguments: Any) -> Answer:  # fmt: skip
    """`function(*arguments)`, which must be an `expected`.

    Errors: CompatibilityError that names the plugin when the function is missing, raises, or answers something else.
    """
    try:
        answer: Any = None if function is None else function(*arguments)
        if conforms(answer, expected):
            wrong = next(wrong_fields(answer), None) if is_dataclass(answer) else None
            if wrong is None:
                return answer
            name, got, hint = wrong
            reason = f"{name} is {got}, not {hint}"
        else:
            reason = f"{answer!r:.80} is not a {getattr(expected, '__name__', expected)}"
    # The code is a plugin's and may raise anything; the user needs the plugin's name.
    except PLUGIN_ERRORS as error:
        reason = reason_of(error)
        registry.keep_traceback(primitive, error)
    package, version = registry.origin(primitive)
    raise CompatibilityError(
        [
            Diagnostic(
                CompatibilityError.category,
                msg(
                    "the code of {name} from {package} {version} failed: {error}",
                    name=primitive.name,
                    package=package,
                    version=version,
                    error=reason,
                ),
                msg("Install another version of {package}, or use another type", package=package),
                "reference/errors.md#plugin-fault",
            )
        ]
    )


def namespace_fault(registry: Registry, namespace: Namespace, error: BaseException) -> Diagnostic:
    """What to tell the user when a namespace's own code fails with `error`; the place is the caller's to add."""
    package, version = registry.provider(namespace)
    registry.keep_traceback(namespace, error)
    return Diagnostic(
        CompatibilityError.category,
        msg(
            "the code of {name} from {package} {version} failed: {error}",
            name=namespace.key,
            package=package,
            version=version,
            error=reason_of(error),
        ),
        msg("Install another version of {package}, or delete the key", package=package),
        "reference/errors.md#plugin-fault",
    )


def written_out(registry: Registry, namespace: Namespace, value: Any, path: str, location: Location | None) -> Any:
    """The long form of the value of a key that stands at `path`.

    Errors: CompatibilityError that names the plugin when that fails, or is not what its own schema allows.
    """
    if namespace.resolve is None:
        return value
    try:
        from jsonschema import Draft202012Validator

        answer = namespace.resolve(value)
        Draft202012Validator(namespace.schema).validate(answer)
        return answer
    # The code is a plugin's and may raise or answer anything; the user needs the plugin's name.
    except PLUGIN_ERRORS as error:
        fault = namespace_fault(registry, namespace, error)
        raise CompatibilityError([replace(fault, path=path, location=location)]) from error
