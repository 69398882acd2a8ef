"""Validation of a spec: its structure, what its words mean together, and whether it is sensible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eulerstack.errors import Finding

__all__ = ["report", "validate_v2"]


def validate_v2(spec: Mapping[str, Any]) -> None:
    """Raises ValidationError or CompatibilityError with every problem of the first stage that fails.

    `spec` comes from `eulerstack.load`, or is a plain mapping, for which there are no locations.
    """
    from eulerstack.dsl.source import as_spec
    from eulerstack.plugins.manager import get_registry
    from eulerstack.schema.compatibility import check_compatibility
    from eulerstack.schema.validate import validate_structure

    data, registry = as_spec(spec), get_registry()
    validate_structure(data, registry)
    check_compatibility(data, registry)


def report(ir: Any, registry: Any = None, spec: Mapping[str, Any] | None = None) -> list[Finding]:
    """Everything legal but unusual about a `ModelIR`; with `spec`, also what only its text shows, and where."""
    from eulerstack.schema.realism import findings

    return findings(ir, registry, spec)
