"""The product of two projections, projected back. (batch, time, d_model) -> (batch, time, d_model)"""

from typing import Any

import torch
from torch import nn


class HeronBilinear(nn.Module):
    """down(one(x) ⊙ other(x))."""

    parameter_roles = {"down_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.one_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.other_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.one_proj(hidden_states) * self.other_proj(hidden_states))
