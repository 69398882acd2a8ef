"""A residual with learned factors: x ← x + a ⊙ mixer(x), then x ← x + b ⊙ ffn(x).

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   2·d_model parameters
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyGatedResidual(nn.Module):
    """The norms are the layer's, under the names of `norm_slots`; where they stand is this class's business."""

    def __init__(self, config: Any, params: dict[str, Any], norm_position: str):
        super().__init__()
        self.position = norm_position
        self.start = params["start"]
        self.scale = config.architecture["model"]["residual_multiplier"]
        self.dropout = nn.Dropout(config.architecture["training_hints"]["dropout"])
        self.mixer_factor = nn.Parameter(torch.empty(config.hidden_size))
        self.ffn_factor = nn.Parameter(torch.empty(config.hidden_size))

    def initialize(self, initializer_range: float) -> None:
        """Both factors begin at `start`."""
        initialization.constant_(self.mixer_factor, self.start)
        initialization.constant_(self.ffn_factor, self.start)

    def join(
        self,
        layer: Any,
        hidden_states: torch.Tensor,
        name: str,
        branch: Callable[[torch.Tensor], torch.Tensor],
        factor: torch.Tensor,
    ) -> torch.Tensor:
        """The stream after one branch."""
        norm, output_norm = getattr(layer, f"{name}_norm", None), getattr(layer, f"{name}_output_norm", None)
        output = branch(hidden_states if norm is None or self.position == "post" else norm(hidden_states))
        if output_norm is not None:
            output = output_norm(output)
        hidden_states = hidden_states + self.dropout(output) * factor * self.scale
        return norm(hidden_states) if norm is not None and self.position == "post" else hidden_states

    def forward(
        self, layer: Any, hidden_states: torch.Tensor, mixer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        hidden_states = self.join(layer, hidden_states, "mixer", mixer, self.mixer_factor)
        if layer.ffn is None:
            return hidden_states
        return self.join(layer, hidden_states, "ffn", layer.ffn, self.ffn_factor)
