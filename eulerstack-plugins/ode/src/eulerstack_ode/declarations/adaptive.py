"""The integrator `ode_adaptive`.

Cost:   of the stage itself nothing, or with `output: hidden` a norm of d_model parameters; its layer counts 1 + steps ·
        (evaluations of a step) times, which is the most as long as no attempt is rejected
Source: see modules/adaptive.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive

Params = Mapping[str, Any]

# Evaluations of the layer in a step after the first, by method: the last one of a step is the first of the next.
EVALUATIONS = {"adaptive_heun": 1, "bosh3": 3, "dopri5": 6, "dopri8": 13}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "How steps are taken, and how large their error may be.",
    "properties": {
        "method": {
            "type": "string",
            "enum": list(EVALUATIONS),
            "default": "dopri5",
            "description": "Embedded Runge-Kutta method, of order 2, 3, 5 or 8.",
        },
        "rtol": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 1e-4,
            "description": "Error of a step that is allowed, as a part of each channel's size.",
        },
        "atol": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 1e-5,
            "description": "Error of a step that is allowed beside rtol, whatever the channel's size.",
        },
    },
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """What the stage adds to its layer."""
    norm = dims.d_model if params["output"] == "hidden" else 0
    return Cost(params=norm, safe_params=norm)


def evaluations(params: Params) -> int:
    """The evaluations of all the steps that there may be, none of them rejected."""
    return 1 + int(params["steps"]) * EVALUATIONS[params["method"]]


ODE_ADAPTIVE = Primitive(
    name="ode_adaptive",
    kind="integrator",
    summary="one layer as the right side of an ODE, integrated in at most steps steps of lengths that fit its error",
    paper="arXiv:1806.07366",
    requires=("torchdiffeq",),
    schema=SCHEMA,
    module="eulerstack_ode.modules.adaptive:AdaptiveSteps",
    reference="eulerstack_ode.reference.linear:linear_solution",
    evaluations=evaluations,
    cached=False,
    one_graph=False,
    cost=cost,
)
