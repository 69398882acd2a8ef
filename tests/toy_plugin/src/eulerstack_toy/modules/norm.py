"""A norm by the mean p-th power of the channels: x / (mean(|x|^p) + eps)^(1/p) · w.

Shapes: (…, width) -> (…, width)
Cost:   width parameters
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyPowerNorm(nn.Module):
    """In float32 at least inside; with p = 2 it is RMSNorm."""

    def __init__(self, width: int, params: dict[str, Any]):
        super().__init__()
        self.p = params["p"]
        self.eps = params["eps"]
        self.weight = nn.Parameter(torch.ones(width))

    def initialize(self, initializer_range: float) -> None:
        """Begins as a norm without a scale."""
        initialization.ones_(self.weight)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        inputs = hidden_states.to(precise)
        size = (inputs.abs().pow(self.p).mean(-1, keepdim=True) + self.eps).pow(1 / self.p)
        return (inputs / size * self.weight.to(precise)).to(hidden_states.dtype)
