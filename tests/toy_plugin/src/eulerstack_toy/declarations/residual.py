"""The residual `vendor.toy.gated`: each branch is added through learned factors, to one residual stream or to several.

Cost: parameters streams·d_model a branch, a factor for each channel of each stream; streams more where several end
"""

from __future__ import annotations

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "A learned factor on each channel of each branch.",
    "properties": {
        "start": {"type": "number", "default": 1.0, "description": "The factor before training."},
        "streams": {"type": "integer", "minimum": 1, "default": 1, "description": "Residual streams."},
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


def branch_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The factors of one branch."""
    return Cost(params=params["streams"] * dims.d_model)


def ends_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The weights by which several streams are added up."""
    return Cost(params=params["streams"], flops_per_token=2 * params["streams"] * dims.d_model)


GATED = Primitive(
    name="vendor.toy.gated",
    kind="residual",
    summary="branches join through learned factors",
    schema=SCHEMA,
    cost=branch_cost,
    per_branch=True,
    streams=lambda params: params["streams"],
    stream_ends_cost=ends_cost,
    norm_slots=gated_slots,
    module="eulerstack_toy.modules.residual:ToyGatedResidual",
    reference="eulerstack_toy.reference.kinds:naive_gated",
)
