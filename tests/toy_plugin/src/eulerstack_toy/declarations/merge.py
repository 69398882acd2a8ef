"""The merge `vendor.toy.blend`: a share of the first stream, and the rest shared among the others.

Cost: one parameter, the logit of the share
"""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Primitive, Problem
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "How much of the first stream goes on.",
    "properties": {
        "share": {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
            "default": 0.5,
            "description": "The first stream's part, before training.",
        },
    },
}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """`streams`, the names of the streams, stands among the parameters of every merge."""
    if len(params["streams"]) > 8:
        what = Message("blend takes at most 8 streams", domain="eulerstack_toy")
        yield Problem("share", what, Message("Delete streams", domain="eulerstack_toy"), "writing-a-plugin.md#a-merge")


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """One number."""
    return Cost(params=1)


BLEND = Primitive(
    name="vendor.toy.blend",
    kind="merge",
    summary="a learned share of the first stream, and the rest of the others",
    schema=SCHEMA,
    cost=cost,
    checks=checks,
    module="eulerstack_toy.modules.merge:ToyBlend",
    reference="eulerstack_toy.reference.kinds:naive_blend",
)
