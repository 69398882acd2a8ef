"""The words for what is wrapped around a whole layer."""

from __future__ import annotations

from typing import Any

from eulerstack.errors import msg
from eulerstack.schema.sections import section, word

DEPTH_ROUTERS = ("top_k", "learned_gate")
PROJECTIONS = ("linear", "conv1d", "mlp")


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


def shape_change() -> dict[str, Any]:
    """A width of a layer's own, of a template."""
    properties = {
        "d_out": word("integer", msg("Width at which the layer works, in channels."), minimum=1, maximum=2**20,
                      examples=[128]),
        "projection": word(
            "string",
            msg(
                "How the stream is projected to that width and back. linear: a matrix; conv1d: a causal convolution "
                "over 3 tokens; mlp: two matrices with GELU between them."
            ),
            enum=list(PROJECTIONS),
            default="linear",
        ),
    }  # fmt: skip
    return section(msg("The layer works at another width than the model."), properties, ("d_out",))
