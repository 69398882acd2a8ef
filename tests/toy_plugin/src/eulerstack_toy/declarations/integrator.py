"""The integrator `vendor.toy.relax`: one layer, evaluated `steps` times, each time moves the stream a part of the way.

Cost: one factor beside the layer's parameters; the layer's FLOPs and cache once for each step
"""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Primitive, Problem
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "How far a step moves the stream.",
    "properties": {
        "rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.5,
            "description": "The part of the way, before training.",
        },
    },
}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """`output` is a word of every integrator; this one has nothing hidden to hand on."""
    if params["output"] != "token":
        yield Problem(
            "output",
            Message("relax has no hidden output", domain="eulerstack_toy"),
            Message("Type output: token", domain="eulerstack_toy"),
            "writing-a-plugin.md#an-integrator",
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """What the stage costs beside its layer."""
    return Cost(params=1)


RELAX = Primitive(
    name="vendor.toy.relax",
    kind="integrator",
    summary="one layer moves the stream part of the way, again and again",
    schema=SCHEMA,
    cost=cost,
    checks=checks,
    copies=lambda params: 1,
    evaluations=lambda params: int(params["steps"]),
    module="eulerstack_toy.modules.integrator:ToyRelax",
    reference="eulerstack_toy.reference.kinds:naive_relax",
)
