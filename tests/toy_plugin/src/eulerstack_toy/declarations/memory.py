"""The memory `vendor.toy.average`: the mean of all tokens so far, read through a matrix.

State: d_model + 1 numbers in float32, whatever the length
Cost:  parameters d_model²; FLOPs per token 2·d_model²
"""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.plugins import MEMORY_WORDS, CacheLayer, Cost, Dims, Primitive, Problem, must_update
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "description": "How loud the memory is.",
    "properties": {
        "scale": {"type": "number", "default": 1.0, "description": "Factor on what is read."},
    },
}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A mean of nothing is refused."""
    yield from must_update(params, "vendor.toy.average")


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """One matrix, and a sum with its count."""
    return Cost(params=dims.d_model**2, flops_per_token=2 * dims.d_model**2, state_bytes_fixed=4 * (dims.d_model + 1))


AVERAGE = Primitive(
    name="vendor.toy.average",
    kind="memory",
    summary="the mean of all tokens so far",
    schema=SCHEMA,
    inline=dict(MEMORY_WORDS),
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
    module="eulerstack_toy.modules.memory:ToyAverage",
    reference="eulerstack_toy.reference.kinds:naive_average",
)
