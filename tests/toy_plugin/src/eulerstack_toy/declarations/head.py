"""The head `vendor.toy.low_rank`: logits through a bottleneck of its own, and a loss of its own.

Cost: parameters rank·(d_model + vocab_size); without a rank none but the model's lm_head, which the core counts
Source: z-loss: PaLM, arXiv:2204.02311, section 5
"""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Primitive, Problem
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "A head of two small matrices.",
    "properties": {
        "rank": {
            "type": ["integer", "null"],
            "minimum": 1,
            "default": 16,
            "description": "Width of the bottleneck, in channels. null: none, but the model's own lm_head.",
        },
        "z_loss": {
            "type": "number",
            "minimum": 0,
            "default": 0.0,
            "description": "Factor on the mean squared log of the softmax's denominator, added to the loss.",
        },
    },
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The head's own matrices; FLOPs of lm_head too, where that is used."""
    if params["rank"] is None:
        return Cost(flops_per_token=2 * dims.vocab_size * dims.d_model)
    weights = params["rank"] * (dims.d_model + dims.vocab_size)
    return Cost(params=weights, flops_per_token=2 * weights)


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A bottleneck is narrower than the stream."""
    if params["rank"] is not None and params["rank"] >= dims.d_model:
        yield Problem(
            "rank",
            Message("a rank of {rank} is no bottleneck", (("rank", params["rank"]),), "eulerstack_toy"),
            Message("Type a rank below {width}", (("width", dims.d_model),), "eulerstack_toy"),
            "writing-a-plugin.md#a-head",
        )


LOW_RANK = Primitive(
    name="vendor.toy.low_rank",
    kind="head",
    summary="logits through a bottleneck",
    schema=SCHEMA,
    cost=cost,
    checks=checks,
    lm_head=lambda params: params["rank"] is None,
    module="eulerstack_toy.modules.head:ToyLowRankHead",
    reference="eulerstack_toy.reference.kinds:naive_low_rank",
)
