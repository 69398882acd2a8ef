"""The feed-forward block `vendor.heron.bilinear`: down(one(x) ⊙ other(x)). Imports no torch."""

from __future__ import annotations

from eulerstack.plugins import Cost, Dims, Linear, Primitive, hookimpl
from eulerstack.plugins.primitive import Params


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Three projections."""
    weights = 3 * dims.d_model * dims.d_ff
    return Cost(params=weights, flops_per_token=2 * weights)


def linears(dims: Dims, params: Params) -> tuple[Linear, ...]:
    """All three may be computed by other means."""
    return (
        Linear("one_proj", dims.d_model, dims.d_ff),
        Linear("other_proj", dims.d_model, dims.d_ff),
        Linear("down_proj", dims.d_ff, dims.d_model, role="output"),
    )


@hookimpl
def eulerstack_ffns() -> list[Primitive]:
    """The feed-forward block `vendor.heron.bilinear`."""
    return [
        Primitive(
            name="vendor.heron.bilinear",
            kind="ffn",
            summary="product of two projections",
            schema={"type": "object", "properties": {}},
            cost=cost,
            linears=linears,
            module="heron_ffn.module:HeronBilinear",
        )
    ]
