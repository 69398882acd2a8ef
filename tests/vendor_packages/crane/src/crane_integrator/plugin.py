"""The integrator `vendor.crane.midpoint`: the layer as the right side of an ODE, two evaluations a step. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Primitive, Problem, hookimpl
from eulerstack.plugins.primitive import Params


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """`output` is a word of every integrator; this one has nothing hidden to hand on."""
    if params["output"] != "token":
        what, fix = Message("midpoint has no hidden output"), Message("Type output: token")
        yield Problem("output", what, fix, "writing-a-plugin.md#an-integrator")


@hookimpl
def eulerstack_integrators() -> list[Primitive]:
    """The integrator `vendor.crane.midpoint`."""
    return [
        Primitive(
            name="vendor.crane.midpoint",
            kind="integrator",
            summary="midpoint rule, two evaluations a step",
            schema={"type": "object", "properties": {}},
            cost=lambda dims, params, element_bytes: Cost(),
            checks=checks,
            copies=lambda params: 1,
            evaluations=lambda params: 2 * int(params["steps"]),
            module="crane_integrator.module:CraneMidpoint",
        )
    ]
