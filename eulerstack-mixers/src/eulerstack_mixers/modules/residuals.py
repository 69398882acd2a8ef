"""How a layer's two branches join its input.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   none of their own; which norms a layer holds follows from the residual and the norm's position
Source: sequential pre and post: Xiong et al. 2020, arXiv:2002.04745; sandwich: Ding et al. 2021, arXiv:2105.13290, and
        Gemma 2, arXiv:2408.00118; output (reordered) norm: OLMo 2, arXiv:2501.00656; parallel: GPT-J and PaLM,
        arXiv:2204.02311
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Branch = Callable[[torch.Tensor], torch.Tensor]


class ResidualBase(nn.Module):
    """What residuals share: the branch's factor and its dropout."""

    def __init__(self, config: Any, params: dict[str, Any], norm_position: str, has_ffn: bool):
        super().__init__()
        architecture = config.architecture
        self.position = norm_position
        self.scale = params["scaling"] * architecture["model"]["residual_multiplier"]
        self.dropout = architecture["training_hints"]["dropout"]

    def scaled(self, branch: torch.Tensor) -> torch.Tensor:
        """What is added to the stream for a branch's output."""
        if self.dropout > 0.0 and self.training:
            branch = nn.functional.dropout(branch, p=self.dropout)
        return branch if self.scale == 1.0 else branch * self.scale

    def alone(self, layer: Any, hidden_states: torch.Tensor, mixer: Branch) -> torch.Tensor:
        """A layer without a feed-forward block: x ← x + s·mixer(x), with norms where the position says."""
        branch = mixer(layer.mixer_norm(hidden_states) if self.position in ("pre", "sandwich") else hidden_states)
        if self.position in ("output", "sandwich"):
            branch = layer.mixer_output_norm(branch)
        hidden_states = hidden_states + self.scaled(branch)
        return layer.mixer_norm(hidden_states) if self.position == "post" else hidden_states


class SequentialResidual(ResidualBase):
    """x ← x + s·mixer(x), then x ← x + s·ffn(x), with norms where the position says."""

    def forward(self, layer: Any, hidden_states: torch.Tensor, mixer: Branch) -> torch.Tensor:
        if layer.ffn is None:
            return self.alone(layer, hidden_states, mixer)
        if self.position == "pre":
            hidden_states = hidden_states + self.scaled(mixer(layer.mixer_norm(hidden_states)))
            return hidden_states + self.scaled(layer.ffn(layer.ffn_norm(hidden_states)))
        if self.position == "post":
            hidden_states = layer.mixer_norm(hidden_states + self.scaled(mixer(hidden_states)))
            return layer.ffn_norm(hidden_states + self.scaled(layer.ffn(hidden_states)))
        if self.position == "output":
            hidden_states = hidden_states + self.scaled(layer.mixer_output_norm(mixer(hidden_states)))
            return hidden_states + self.scaled(layer.ffn_output_norm(layer.ffn(hidden_states)))
        branch = layer.mixer_output_norm(mixer(layer.mixer_norm(hidden_states)))
        hidden_states = hidden_states + self.scaled(branch)
        return hidden_states + self.scaled(layer.ffn_output_norm(layer.ffn(layer.ffn_norm(hidden_states))))


class ParallelResidual(ResidualBase):
    """x ← x + s·mixer(n) + s·ffn(n): both branches read the same, once normalised, input."""

    def forward(self, layer: Any, hidden_states: torch.Tensor, mixer: Branch) -> torch.Tensor:
        if layer.ffn is None:
            return self.alone(layer, hidden_states, mixer)
        normed = layer.mixer_norm(hidden_states) if self.position in ("pre", "sandwich") else hidden_states
        mixed, fed = mixer(normed), layer.ffn(normed)
        if self.position in ("output", "sandwich"):
            mixed, fed = layer.mixer_output_norm(mixed), layer.ffn_output_norm(fed)
        hidden_states = hidden_states + self.scaled(mixed) + self.scaled(fed)
        return layer.mixer_norm(hidden_states) if self.position == "post" else hidden_states
