"""The words for a generation in phases: `execution_modes` and `transition`.

What they do is in `eulerstack.hf.phases`; what contradicts what is in `schema/phase_checks.py`.
"""

from __future__ import annotations

from eulerstack.errors import msg
from eulerstack.schema.sections import Schema, section, word

TRANSITIONS = ("special_token", "budget_exhausted")


def execution_modes() -> Schema:
    """The phases of a generation, in order."""
    properties = {
        "name": word("string", msg("Name of the phase."), minLength=1, maxLength=200, examples=["think"]),
        "max_tokens": word(
            "integer",
            msg("Budget of the phase: the most tokens that it generates, the one that ends it included."),
            minimum=1,
            maximum=2**30,
            examples=[2048],
        ),
        "kv_share": word(
            "boolean",
            msg(
                "Whether later phases see the tokens of this one. false: they begin again from the prompt, and from "
                "the token that ended it."
            ),
            default=True,
        ),
        "loss_weight": word(
            "number",
            msg("Factor on the loss of the tokens that are labelled as of this phase; 0: they are not learned."),
            minimum=0,
            maximum=1000,
            default=1.0,
        ),
        "visible_to_user": word(
            "boolean", msg("Whether generate returns and streams the tokens of this phase."), default=True
        ),
        "per_token_rationale": word(
            "boolean",
            msg(
                "Whether the phase is gone through before each single token of the next one. With kv_share: false a "
                "rationale is seen by its token alone."
            ),
            default=False,
        ),
    }
    return {
        "type": "array",
        "description": msg("The phases of a generation, in order."),
        "items": section(msg("One phase."), properties, ("name", "max_tokens")),
        "minItems": 1,
        "maxItems": 100,
        "examples": [[{"name": "think", "max_tokens": 8192}, {"name": "answer", "max_tokens": 2048}]],
    }


def transition() -> Schema:
    """What ends a phase."""
    properties = {
        "type": word(
            "string",
            msg(
                "special_token: a token ends a phase, and is put last where the budget ends; budget_exhausted: the "
                "budget alone."
            ),
            enum=list(TRANSITIONS),
            default="budget_exhausted",
        ),
        "token": word(
            ["string", "null"],
            msg("The token that ends a phase; special_token needs it. A tokenizer without it is given it."),
            minLength=1,
            maxLength=200,
            default=None,
            examples=["<think_end>"],
        ),
    }
    return section(msg("What ends a phase that is not the last."), properties)
