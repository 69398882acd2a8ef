"""The memory `vendor.stork.trace`: a fading sum of all tokens, read through a matrix. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.plugins import MEMORY_WORDS, CacheLayer, Cost, Dims, Primitive, Problem, hookimpl, must_update
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "properties": {
        "keep": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5, "description": "Part kept a token."}
    },
}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A trace of nothing is refused."""
    yield from must_update(params, "vendor.stork.trace")


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """One matrix, and one float32 a channel."""
    return Cost(params=dims.d_model**2, flops_per_token=2 * dims.d_model**2, state_bytes_fixed=4 * dims.d_model)


@hookimpl
def eulerstack_memories() -> list[Primitive]:
    """The memory `vendor.stork.trace`."""
    return [
        Primitive(
            name="vendor.stork.trace",
            kind="memory",
            summary="fading sum of what was read",
            schema=SCHEMA,
            inline=dict(MEMORY_WORDS),
            checks=checks,
            cost=cost,
            cache=lambda params: CacheLayer("eulerstack_state"),
            module="stork_memory.module:StorkTrace",
        )
    ]
