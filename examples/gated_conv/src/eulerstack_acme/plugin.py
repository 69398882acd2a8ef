"""The mixer `vendor.acme.gated_conv`: its words, its price, what it keeps. Imports no torch."""

from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, hookimpl

KERNEL = {"type": "integer", "minimum": 2, "maximum": 64, "default": 4, "description": "Tokens that an output sees."}
SCHEMA = {"type": "object", "description": "A gated short convolution.", "properties": {"kernel": KERNEL}}


def cost(dims: Dims, params, element_bytes: int) -> Cost:
    d, kernel = dims.d_model, params["kernel"]
    flops = 8 * d**2 + (2 * kernel + 2) * d
    return Cost(params=4 * d**2 + kernel * d, flops_per_token=flops, state_bytes_fixed=(kernel - 1) * d * element_bytes)


GATED_CONV = Primitive(
    name="vendor.acme.gated_conv",
    kind="mixer",
    summary="gated short convolution",
    schema=SCHEMA,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
    module="eulerstack_acme.modules:GatedConv",
    reference="eulerstack_acme.reference:naive_gated_conv",
)


@hookimpl
def eulerstack_mixers():
    return [GATED_CONV]
