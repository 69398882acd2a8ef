"""Realism rules about branches and stages: what is legal, but seldom meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, msg
from eulerstack.plugins import Rule

# Published models that apply one layer again and again do so up to some dozens of times.
MOST_STEPS = 32


def _steps(ir: Any) -> Iterator[Finding]:
    for stage in ir.stages:
        if stage.word != "integrator":
            continue
        node = stage.integrator
        steps, output = node.params["steps"], node.params["output"]
        if steps == 1 and output == "token" and node.type in ("discrete", "ode_euler"):
            what = msg("one step of {type} is the layer itself", type=node.type)
            yield Finding("steps", what, "layer_schedule", node.location)
        elif steps > MOST_STEPS:
            what = msg("{steps} steps are more than published models take", steps=steps)
            yield Finding("steps", what, "layer_schedule", node.location)


def _branches(ir: Any) -> Iterator[Finding]:
    seen = set()
    for layer in ir.layers:
        mixer = layer.mixer
        if mixer.type != "branched" or layer.template in seen:
            continue
        seen.add(layer.template)
        selector = mixer.params["selector"]
        if selector["type"] == "top_k" and selector["top_k"] == len(mixer.held):
            path = f"layer_templates.{layer.template}.mixer.branched.selector.top_k"
            yield Finding("branches", msg("a token goes through all branches, which is type: learned_gate"), path,
                          mixer.location)  # fmt: skip


STAGE_RULES = (
    Rule("steps", "an integrator takes more than one step, and not more than are usual", _steps),
    Rule("branches", "a selector of type top_k leaves some branches out", _branches),
)
