"""A residual with learned factors: x ← x + a ⊙ mixer(x), then x ← x + b ⊙ ffn(x).

With several streams a branch reads their mean, and each stream has factors of its own.

Shapes: (batch, time, d_model) -> (batch, time, d_model); with several streams (batch, time, streams, d_model)
Cost:   streams·d_model parameters a branch; streams where they end
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyStreamEnds(nn.Module):
    """Streams begin as copies and end as a learned sum."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.streams = params["streams"]
        self.weights = nn.Parameter(torch.empty(self.streams))

    def initialize(self, initializer_range: float) -> None:
        """The sum begins as the mean."""
        initialization.constant_(self.weights, 1 / self.streams)

    def enter(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, time, d_model) -> (batch, time, streams, d_model)."""
        return hidden_states.unsqueeze(-2).repeat_interleave(self.streams, dim=-2)

    def leave(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, time, streams, d_model) -> (batch, time, d_model)."""
        return (hidden_states * self.weights.unsqueeze(-1)).sum(-2)


class ToyGatedResidual(nn.Module):
    """The norms are the layer's, under the names of `norm_slots`; where they stand is this class's business."""

    stream_ends = ToyStreamEnds

    def __init__(self, config: Any, params: dict[str, Any], norm_position: str, has_ffn: bool):
        super().__init__()
        self.position = norm_position
        self.start, self.streams = params["start"], params["streams"]
        self.scale = config.architecture["model"]["residual_multiplier"]
        self.dropout = nn.Dropout(config.architecture["training_hints"]["dropout"])
        shape = (self.streams, config.hidden_size) if self.streams > 1 else (config.hidden_size,)
        self.mixer_factor = nn.Parameter(torch.empty(shape))
        self.ffn_factor = nn.Parameter(torch.empty(shape)) if has_ffn else None

    def initialize(self, initializer_range: float) -> None:
        """All factors begin at `start`."""
        for factor in self.parameters():
            initialization.constant_(factor, self.start)

    def join(
        self,
        layer: Any,
        hidden_states: torch.Tensor,
        name: str,
        branch: Callable[[torch.Tensor], torch.Tensor],
        factor: torch.Tensor,
    ) -> torch.Tensor:
        """The stream or streams after one branch."""
        norm, output_norm = getattr(layer, f"{name}_norm", None), getattr(layer, f"{name}_output_norm", None)
        branch_input = hidden_states.mean(-2) if self.streams > 1 else hidden_states
        output = branch(branch_input if norm is None or self.position == "post" else norm(branch_input))
        if output_norm is not None:
            output = output_norm(output)
        output = self.dropout(output) * self.scale
        hidden_states = hidden_states + (output.unsqueeze(-2) if self.streams > 1 else output) * factor
        return norm(hidden_states) if norm is not None and self.position == "post" else hidden_states

    def forward(
        self, layer: Any, hidden_states: torch.Tensor, mixer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        hidden_states = self.join(layer, hidden_states, "mixer", mixer, self.mixer_factor)
        if layer.ffn is None:
            return hidden_states
        return self.join(layer, hidden_states, "ffn", layer.ffn, self.ffn_factor)
