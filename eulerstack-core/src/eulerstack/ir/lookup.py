"""Finds the primitives that an IR names."""

from __future__ import annotations

from eulerstack.errors import CompatibilityError, Diagnostic, Location, msg
from eulerstack.plugins import Primitive
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.primitive import Kind
from eulerstack.schema.packages import package_of


def primitive_of(registry: Registry, kind: Kind, name: str, location: Location | None = None) -> Primitive:
    """The primitive called `name`; a CompatibilityError names what is missing."""
    try:
        return registry.get(kind, name)
    except LookupError:
        package = package_of(kind, name)
        raise CompatibilityError(
            [
                Diagnostic(
                    "CompatibilityError",
                    msg("no installed plugin provides the {kind} {name}", kind=kind, name=name),
                    msg("pip install --upgrade {package}", package=package)
                    if package
                    else msg(
                        "install the package that provides {name}; eulerstack plugins list shows what is there",
                        name=name,
                    ),
                    "reference/errors.md#missing-primitive",
                    location=location,
                )
            ]
        ) from None
