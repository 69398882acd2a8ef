"""Several mixers side by side, between which a selector decides for each token.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  that of every branch, each in a cache slot of its own: all branches read all tokens
Cost:   parameters branches·d_model for the selector, and those of the branches; a token touches all of them, and its
        FLOPs are those of all, because a branch that a token does not choose reads it all the same
Errors: CompatibilityError when top_k exceeds the branches, or is given to a learned_gate
Source: see modules/branched.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Cost, Dims, Held, Primitive, Problem
from eulerstack_mixers.declarations.words import Schema, choice, integer

Params = Mapping[str, Any]

SEE = "reference/errors.md#branches"
MOST_BRANCHES = 64

SELECTOR: Schema = {
    "type": "object",
    "description": "Weighs the branches for each token.",
    "default": {},
    "properties": {
        "type": choice(
            "learned_gate: every branch, by its share; top_k: only the branches with the largest shares.",
            ("learned_gate", "top_k"),
            "learned_gate",
        ),
        "top_k": integer(
            "Branches that a token goes through under type: top_k; at most as many as there are.", 1, minimum=1,
            maximum=MOST_BRANCHES,
        ),
        "input": choice("What shares are computed from: hidden is the mixer's own input.", ("hidden",), "hidden"),
    },
    "additionalProperties": False,
}  # fmt: skip


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """A number of branches that can't be chosen, or that nobody would look at."""
    count, selector = len(params["branches"]), params["selector"]
    if selector["type"] == "learned_gate" and selector["top_k"] != 1:
        yield Problem(
            "selector.top_k",
            msg("a learned_gate weighs every branch, so top_k {top_k} chooses nothing", top_k=selector["top_k"]),
            msg("type 'type: top_k', or delete top_k"),
            SEE,
        )
    elif selector["top_k"] > count:
        yield Problem(
            "selector.top_k",
            msg("top_k {top_k} is larger than the number of branches, {count}", top_k=selector["top_k"], count=count),
            msg("type top_k: {count} or less", count=count),
            SEE,
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The selector: a matrix with a row for each branch."""
    weights = len(params["branches"]) * dims.d_model
    return Cost(params=weights, flops_per_token=2 * weights, safe_params=weights)


BRANCHED = Primitive(
    name="branched",
    kind="mixer",
    summary="several mixers side by side; for each token a selector weighs them or chooses among them",
    paper="arXiv:1701.06538",
    module="eulerstack_mixers.modules.branched:Branched",
    reference="eulerstack_mixers.reference.branched:branched",
    schema={"type": "object", "properties": {"selector": SELECTOR}},
    holds=Held("branches", "Mixers, each under a name of its own.", least=2, submodule="branch_{name}"),
    routed_units=lambda params: len(params["branches"]),
    checks=checks,
    cost=cost,
)
