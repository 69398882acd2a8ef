"""Retrieval memory: attention over the nearest of a bounded number of stored tokens.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model), added to what the mixer gives
State:  a key and a value of `hidden` channels for each of `slots` tokens, in the model's dtype, and 8 bytes that count
        tokens; allocated whole, so that bytes do not grow with time
Cost:   parameters 4·d_model·hidden + n_heads; FLOPs per token 2 per weight of the projections, and 4·hidden for each of
        the earlier tokens that are stored
Errors: CompatibilityError when hidden is not divisible by n_heads, when top_k is over slots, and when it is never
        updated
Source: Wu et al. 2022, Memorizing Transformers, arXiv:2203.08913
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import MEMORY_WORDS, CacheLayer, Cost, Dims, Primitive, Problem, must_update
from eulerstack_titans.declarations.associative import check_heads, resolve_width
from eulerstack_titans.declarations.neural_memory import SEE

Params = Mapping[str, Any]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Sizes of the store.",
    "properties": {
        "hidden": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**20,
            "default": None,
            "description": "Width of the keys and of the values of all heads, in channels; null: n_heads * head_dim.",
        },
        "slots": {
            "type": "integer",
            "minimum": 1,
            "maximum": 2**24,
            "default": 1024,
            "description": "Tokens that are stored; the oldest is dropped first.",
        },
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": 2**24,
            "default": 32,
            "description": "Stored tokens that a token reads, in each head the nearest ones.",
        },
    },
    "additionalProperties": False,
}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A memory that stays empty, heads of unequal width, and more to read than there is."""
    yield from must_update(params, "retrieval")
    yield from check_heads(dims, params)
    if params["top_k"] > params["slots"]:
        yield Problem(
            "top_k",
            msg("top_k {top_k} is more than the {slots} slots", top_k=params["top_k"], slots=params["slots"]),
            msg("Type top_k: {slots}, or raise slots", slots=params["slots"]),
            SEE,
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer's memory."""
    hidden, projections = params["hidden"], 4 * dims.d_model * params["hidden"]
    return Cost(
        params=projections + dims.n_heads,
        # A token never reads itself, which the window counts in.
        flops_per_token=2 * projections - 4 * hidden,
        flops_per_token_per_context=4 * hidden,
        state_window=params["slots"],
        state_bytes_fixed=2 * params["slots"] * hidden * element_bytes + 8,
    )


RETRIEVAL = Primitive(
    name="retrieval",
    kind="memory",
    summary="attention over the nearest of the last tokens, which are stored",
    paper="arXiv:2203.08913",
    module="eulerstack_titans.modules.retrieval:RetrievalMemory",
    reference="eulerstack_titans.reference.retrieval:retrieval",
    schema=SCHEMA,
    block="params",
    inline=dict(MEMORY_WORDS),
    resolve=resolve_width,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
)
