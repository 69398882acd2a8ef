"""Asks a declaration's own functions, which may raise or answer anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from eulerstack.errors import CompatibilityError, Diagnostic, msg
from eulerstack.plugins.primitive import Primitive

if TYPE_CHECKING:
    from eulerstack.plugins.manager import Registry

Answer = TypeVar("Answer")


def ask(registry: Registry, primitive: Primitive, expected: type[Answer], function: Callable[..., Any] | None,
        *arguments: Any) -> Answer:  # fmt: skip
    """`function(*arguments)`, which must be an `expected`.

    Errors: CompatibilityError that names the plugin when the function is missing, raises, or answers something else.
    """
    try:
        answer = None if function is None else function(*arguments)
        if isinstance(answer, expected):
            return answer
        reason = f"{answer!r:.80} is not a {expected.__name__}"
    # The code is a plugin's and may raise anything; the user needs the plugin's name.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
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
