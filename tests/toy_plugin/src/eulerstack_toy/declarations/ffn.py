"""The feed-forward block `vendor.toy.maxout`: down(max over pieces of up(x)).

Cost: parameters (pieces + 1)·d_model·d_ff; FLOPs per token 2 per weight
Source: maxout, Goodfellow et al. 2013, arXiv:1302.4389
"""

from __future__ import annotations

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "Linear maps of which each channel takes the largest.",
    "properties": {
        "pieces": {
            "type": "integer",
            "minimum": 1,
            "maximum": 64,
            "default": 2,
            "description": "Linear maps a channel.",
        },
    },
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Weights of the projections, and two FLOPs for each."""
    weights = (params["pieces"] + 1) * dims.d_model * dims.d_ff
    return Cost(params=weights, flops_per_token=2 * weights)


MAXOUT = Primitive(
    name="vendor.toy.maxout",
    kind="ffn",
    summary="the largest of several linear maps",
    paper="arXiv:1302.4389",
    schema=SCHEMA,
    cost=cost,
    module="eulerstack_toy.modules.ffn:ToyMaxout",
    reference="eulerstack_toy.reference.kinds:naive_maxout",
)
