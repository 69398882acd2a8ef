"""The words for what is wrapped around a whole layer."""

from __future__ import annotations

from typing import Any

from eulerstack.errors import msg
from eulerstack.schema.sections import section, word

DEPTH_ROUTERS = ("top_k", "learned_gate")


def depth_gating() -> dict[str, Any]:
    """Mixture-of-Depths, of an entry of the schedule."""
    properties = {
        "enabled": word("boolean", msg("Whether these layers are gated."), default=True),
        "capacity": word(
            "number",
            msg("Share of the tokens that a layer processes; the others pass it by."),
            exclusiveMinimum=0,
            maximum=1,
            default=0.5,
        ),
        "router": word(
            "string",
            msg(
                "top_k: in training the best tokens of a sequence are chosen; learned_gate: in training, too, a token "
                "decides from itself alone."
            ),
            enum=list(DEPTH_ROUTERS),
            default="top_k",
        ),
    }
    return section(msg("Mixture-of-Depths: only some of the tokens pass through these layers."), properties)
