"""Stages that apply layers several times.

Cost:   of a stage itself nothing, or with `output: hidden` a norm of d_model parameters; its layers count as often as
        they are evaluated
Source: see modules/integrators.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive

Params = Mapping[str, Any]

STAGES_PER_STEP = 4


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """What the stage adds to its layers."""
    norm = dims.d_model if params["output"] == "hidden" else 0
    return Cost(params=norm, safe_params=norm)


DISCRETE = Primitive(
    name="discrete",
    kind="integrator",
    summary="independent copies of a layer, one after another",
    paper="arXiv:1807.03819",
    module="eulerstack_mixers.modules.integrators:DiscreteSteps",
    reference="eulerstack_mixers.reference.integrators:discrete",
    copies=lambda params: int(params["steps"]),
    cost=cost,
)
ODE_EULER = Primitive(
    name="ode_euler",
    kind="integrator",
    summary="one layer as the right side of an ODE, integrated by Euler's method",
    paper="arXiv:1806.07366",
    module="eulerstack_mixers.modules.integrators:EulerSteps",
    reference="eulerstack_mixers.reference.integrators:ode_euler",
    evaluations=lambda params: int(params["steps"]),
    cost=cost,
)
ODE_RK4 = Primitive(
    name="ode_rk4",
    kind="integrator",
    summary="one layer as the right side of an ODE, integrated by the classic Runge-Kutta method",
    paper="arXiv:1806.07366",
    module="eulerstack_mixers.modules.integrators:RungeKuttaSteps",
    reference="eulerstack_mixers.reference.integrators:ode_rk4",
    evaluations=lambda params: STAGES_PER_STEP * int(params["steps"]),
    cost=cost,
)
INTEGRATORS = (DISCRETE, ODE_EULER, ODE_RK4)
