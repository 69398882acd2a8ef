"""A third party's integrators, for tests of what holds for every stage: nothing here is the language's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eulerstack.plugins import Cost, Primitive


class Copies(nn.Module):
    """Runs its layers one after another."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps = params["steps"]

    def forward(self, hidden_states: torch.Tensor, evaluate: Any) -> torch.Tensor:
        for step in range(self.steps):
            hidden_states = evaluate(hidden_states, step, 0)
        return hidden_states


class Steps(nn.Module):
    """Moves the stream by what one layer changes in it, `steps` times, each time by its part and a learned factor."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps = params["steps"]
        self.factor = nn.Linear(1, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor, evaluate: Any) -> torch.Tensor:
        for step in range(self.steps):
            change = evaluate(hidden_states, 0, step) - hidden_states
            hidden_states = hidden_states + change * self.factor.weight[0] / self.steps
        return hidden_states


COPIES = Primitive(
    name="vendor.acme.copies",
    kind="integrator",
    summary="independent layers",
    module="tests.model.stages:Copies",
    copies=lambda params: int(params["steps"]),
)
STEPS = Primitive(
    name="vendor.acme.steps",
    kind="integrator",
    summary="one layer, several times",
    module="tests.model.stages:Steps",
    cost=lambda dims, params, size: Cost(params=1),
    evaluations=lambda params: int(params["steps"]),
)


def stage(primitive: Primitive, steps: int = 3, body: str = "decoder", **words: Any) -> dict[str, Any]:
    """An entry of the schedule."""
    return {"integrator": {"type": primitive.name, "steps": steps, "body": body, **words}}
