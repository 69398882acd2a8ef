"""A linear layer of a low rank. (…, in) -> (…, out); down (rank, in), up (out, rank)"""

from typing import Any

import torch
from torch import nn
from transformers import initialization


class SwiftThin(nn.Module):
    """up(down(x))."""

    parameter_roles = {"down": "hidden", "up": "hidden"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.down = nn.Parameter(torch.empty(params["rank"], params["in_features"]))
        self.up = nn.Parameter(torch.empty(params["out_features"], params["rank"]))

    def initialize(self, deviation: float) -> None:
        """Entries of the product have the deviation of the matrix it stands for."""
        each = (deviation**2 / self.down.shape[0]) ** 0.25
        initialization.normal_(self.down, mean=0.0, std=each)
        initialization.normal_(self.up, mean=0.0, std=each)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.linear(hidden_states, self.down), self.up)
