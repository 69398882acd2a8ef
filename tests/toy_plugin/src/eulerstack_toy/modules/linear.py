"""A linear layer with a block-diagonal matrix.

Shapes: hidden_states (…, in) -> (…, out); weight (blocks, out / blocks, in / blocks)
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyBlocks(nn.Module):
    """Blocks of the outputs, each computed from the block of the inputs at the same place."""

    parameter_roles = {"weight": "hidden"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        blocks, width = params["blocks"], params["out_features"]
        self.weight = nn.Parameter(torch.empty(blocks, width // blocks, params["in_features"] // blocks))
        self.bias = nn.Parameter(torch.empty(width)) if params["bias"] else None

    def initialize(self, deviation: float) -> None:
        """Outputs as large as those of the matrix it stands for, whose entries would have this deviation."""
        initialization.normal_(self.weight, mean=0.0, std=deviation * self.weight.shape[0] ** 0.5)
        if self.bias is not None:
            initialization.zeros_(self.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        blocks = hidden_states.unflatten(-1, (self.weight.shape[0], -1))
        outputs = torch.einsum("...bi,boi->...bo", blocks, self.weight).flatten(-2)
        return outputs if self.bias is None else outputs + self.bias
