"""A maxout block: down(max over pieces of up(x)).

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
Cost:   parameters (pieces + 1)·d_model·d_ff
Source: Goodfellow et al. 2013, arXiv:1302.4389
"""

from typing import Any

import torch
from torch import nn


class ToyMaxout(nn.Module):
    """Each of d_ff channels is the largest of `pieces` linear maps."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.pieces = params["pieces"]
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size * self.pieces, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        pieces = self.up_proj(hidden_states).unflatten(-1, (self.pieces, -1))
        return self.down_proj(pieces.amax(dim=-2))
