"""The gated feed-forward block: down(act(gate(x)) ⊙ up(x)).

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   3·d_model·d_ff parameters, plus 2·d_ff + d_model with biases
Source: Shazeer 2020, arXiv:2002.05202, eq. 6
"""

from typing import Any

import torch
from torch import nn

from eulerstack_mixers.modules.activations import ACTIVATIONS


class GatedMLP(nn.Module):
    """A linear unit whose channels are switched by an activated gate."""

    parameter_roles = {"down_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=params["bias"])
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=params["bias"])
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=params["bias"])
        self.activation = ACTIVATIONS[params["activation"]]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
