"""Associative memory: a matrix a head, corrected towards what a key should give.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model), added to what the mixer gives
State:  hidden · head_dim scalars in float32, (hidden / n_heads) × head_dim for each head; bytes do not grow with time
Cost:   parameters 2·d_model·(hidden + n_heads·head_dim), and n_heads·(d_model + 1) for each gate (rate, forgetting);
        FLOPs per token 2 per weight of the projections, and 6·hidden·head_dim to predict, to correct and to read
Errors: CompatibilityError when hidden is not divisible by n_heads, and when it is never updated
Source: Yang et al. 2024, arXiv:2412.06464; Schlag et al. 2021, arXiv:2102.11174
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import MEMORY_WORDS, CacheLayer, Cost, Dims, Primitive, Problem, must_update
from eulerstack_titans.declarations.neural_memory import SEE

Params = Mapping[str, Any]

INLINE: dict[str, Any] = {
    **MEMORY_WORDS,
    "inner_lr": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1000,
        "default": 1.0,
        "description": "Largest part of an error that a token corrects, of which its gate takes a part.",
    },
    "forget": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.01,
        "description": "Where the learned gate begins that decays the memory; 0: there is none.",
    },
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Sizes of the memory's matrices.",
    "properties": {
        "hidden": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**20,
            "default": None,
            "description": "Width of the keys of all heads, in channels; null: n_heads * head_dim.",
        },
    },
    "additionalProperties": False,
}


def resolve_width(params: Params, model: Mapping[str, Any]) -> Params:
    """Fills the width of all heads."""
    if params["hidden"] is not None:
        return params
    return {**params, "hidden": model["model"]["n_heads"] * model["model"]["head_dim"]}


def check_heads(dims: Dims, params: Params) -> Iterator[Problem]:
    """That every head has the same width."""
    if params["hidden"] % dims.n_heads:
        yield Problem(
            "hidden",
            msg("hidden {hidden} can't be divided by n_heads {n_heads}", hidden=params["hidden"], n_heads=dims.n_heads),
            msg("Type hidden: {hidden}", hidden=max(1, round(params["hidden"] / dims.n_heads)) * dims.n_heads),
            SEE,
        )


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A memory that stays empty, and heads of unequal width."""
    yield from must_update(params, "associative")
    yield from check_heads(dims, params)


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer's memory; the state is float32 whatever the model's dtype."""
    hidden, width = params["hidden"], dims.n_heads * dims.head_dim
    gates = dims.n_heads * (2 if params["forget"] else 1)
    projections = 2 * dims.d_model * (hidden + width) + gates * dims.d_model
    return Cost(
        params=projections + gates,
        flops_per_token=2 * projections + 6 * hidden * dims.head_dim,
        state_bytes_fixed=4 * hidden * dims.head_dim,
    )


ASSOCIATIVE = Primitive(
    name="associative",
    kind="memory",
    summary="a matrix a head that is corrected by the gated delta rule",
    paper="arXiv:2412.06464",
    module="eulerstack_titans.modules.associative:AssociativeMemory",
    reference="eulerstack_titans.reference.associative:associative",
    schema=SCHEMA,
    block="params",
    inline=INLINE,
    resolve=resolve_width,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
)
