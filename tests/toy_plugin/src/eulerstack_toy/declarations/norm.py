"""The norm `vendor.toy.power`: x divided by its mean p-th power's p-th root, times a weight.

Cost: parameters d_model
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "A norm by the mean p-th power of the channels.",
    "properties": {
        "p": {"type": "number", "minimum": 1, "maximum": 16, "default": 2.0, "description": "The power; 2 is RMSNorm."},
        "eps": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "default": None,
            "description": "Added to the mean power before the root; null: model.norm_eps.",
        },
    },
}


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Takes eps from the model where the block leaves it out."""
    return {**params, "eps": model["model"]["norm_eps"] if params["eps"] is None else params["eps"]}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """A weight a channel."""
    return Cost(params=dims.d_model)


POWER_NORM = Primitive(
    name="vendor.toy.power",
    kind="norm",
    summary="divides by the p-th root of the mean p-th power",
    schema=SCHEMA,
    resolve=resolve,
    cost=cost,
    module="eulerstack_toy.modules.norm:ToyPowerNorm",
    reference="eulerstack_toy.reference.kinds:naive_power_norm",
)
