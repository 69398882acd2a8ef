"""The mixer `vendor.sparrow.shift`: W_now x_t + amount · W_past x_{t-1}. Imports no torch."""

from __future__ import annotations

from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, hookimpl
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "number", "default": 1.0, "description": "Weight of the token before."}},
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Two square projections, and one token of state."""
    weights = 2 * dims.d_model**2
    return Cost(params=weights, flops_per_token=2 * weights, state_bytes_fixed=dims.d_model * element_bytes)


@hookimpl
def eulerstack_mixers() -> list[Primitive]:
    """The mixer `vendor.sparrow.shift`."""
    return [
        Primitive(
            name="vendor.sparrow.shift",
            kind="mixer",
            summary="each token and the one before it",
            schema=SCHEMA,
            cost=cost,
            cache=lambda params: CacheLayer("eulerstack_state"),
            state=("ssm_state",),
            module="sparrow_mixer.module:SparrowShift",
        )
    ]
