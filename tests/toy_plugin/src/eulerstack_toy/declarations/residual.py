"""The residual `vendor.toy.gated`: each branch is added through a learned factor a channel.

Cost: parameters 2·d_model, a factor a channel for each branch
"""

from __future__ import annotations

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "A learned factor on each channel of each branch.",
    "properties": {
        "start": {"type": "number", "default": 1.0, "description": "The factor before training."},
    },
}


GATED_SLOTS = {
    "pre": ("{branch}_norm",),
    "post": ("{branch}_norm",),
    "output": ("{branch}_output_norm",),
    "sandwich": ("{branch}_norm", "{branch}_output_norm"),
}


def gated_slots(position: str, has_ffn: bool) -> tuple[str, ...]:
    """Names of a layer's norms; `position` is the norm's word in the spec."""
    branches = ("mixer", "ffn") if has_ffn else ("mixer",)
    return tuple(slot.format(branch=branch) for branch in branches for slot in GATED_SLOTS[position])


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Two vectors of factors."""
    return Cost(params=2 * dims.d_model)


GATED = Primitive(
    name="vendor.toy.gated",
    kind="residual",
    summary="branches join through learned factors",
    schema=SCHEMA,
    cost=cost,
    norm_slots=gated_slots,
    module="eulerstack_toy.modules.residual:ToyGatedResidual",
)
