"""The plain feed-forward block: down(act(up(x))).

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   2·d_model·d_ff parameters, plus d_ff + d_model with biases
Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 2
"""

from typing import Any

import torch
from torch import nn

from eulerstack_mixers.modules.activations import ACTIVATIONS


class MLP(nn.Module):
    """Two linear layers around an activation."""

    parameter_roles = {"down_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=params["bias"])
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=params["bias"])
        self.activation = ACTIVATIONS[params["activation"]]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.up_proj(hidden_states)))
