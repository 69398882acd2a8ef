"""Relaxation: x ← x + r·(layer(x) − x), several times with the same layer.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   one parameter, r
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyRelax(nn.Module):
    """`evaluate(hidden_states, layer, evaluation)` is the layer; each evaluation has a cache slot of its own."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps, self.start = params["steps"], params["rate"]
        self.rate = nn.Parameter(torch.empty(1))

    def initialize(self, initializer_range: float) -> None:
        """The rate begins as the spec says."""
        initialization.constant_(self.rate, self.start)

    def forward(
        self, hidden_states: torch.Tensor, evaluate: Callable[[torch.Tensor, int, int], torch.Tensor]
    ) -> torch.Tensor:
        for step in range(self.steps):
            hidden_states = hidden_states + self.rate * (evaluate(hidden_states, 0, step) - hidden_states)
        return hidden_states
