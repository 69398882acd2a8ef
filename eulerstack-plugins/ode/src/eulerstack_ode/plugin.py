"""The hooks of eulerstack-ode."""

from __future__ import annotations

from eulerstack.plugins import Primitive, hookimpl
from eulerstack_ode.declarations.adaptive import ODE_ADAPTIVE


@hookimpl
def eulerstack_integrators() -> tuple[Primitive, ...]:
    """The integrator `ode_adaptive`."""
    return (ODE_ADAPTIVE,)
