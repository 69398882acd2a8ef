"""The mixer `vendor.toy.ema`: its words, its price, what it keeps. Imports no torch.

Cost: parameters 3·d² + d; FLOPs per token 6·d² + 4·d; cache 4·d bytes a sequence, whatever its length
"""

from __future__ import annotations

from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "A gated exponential moving average.",
    "properties": {
        "half_life": {
            "type": "number",
            "minimum": 0.1,
            "maximum": 1000000,
            "default": 32.0,
            "description": "Tokens after which a channel has forgotten half of what it held, before training.",
        },
    },
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Three square projections, a decay a channel, and one float32 a channel of state whatever the model's dtype."""
    d_model = dims.d_model
    return Cost(
        params=3 * d_model**2 + d_model,
        flops_per_token=6 * d_model**2 + 4 * d_model,
        state_bytes_fixed=4 * d_model,
    )


EMA = Primitive(
    name="vendor.toy.ema",
    kind="mixer",
    summary="gated exponential moving average",
    schema=SCHEMA,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
    state=("ssm_state",),
    module="eulerstack_toy.modules.ema:ToyEMA",
    reference="eulerstack_toy.reference.ema:naive_ema",
)
