"""Feed-forward blocks from their definitions. Shapes: (…, d_model) -> (…, d_model).

Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 2; Shazeer 2020, arXiv:2002.05202, eq. 6; squared relu,
arXiv:2109.08668; GELU, Hendrycks and Gimpel 2016, arXiv:1606.08415
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from eulerstack_mixers.reference.attention import project


def activate(name: str, states: Tensor) -> Tensor:
    """The activation called `name` in a spec."""
    if name in ("silu", "swiglu"):
        return states / (1 + torch.exp(-states))
    if name in ("gelu", "geglu"):
        return states * (1 + torch.erf(states / math.sqrt(2))) / 2
    if name == "gelu_tanh":
        return states * (1 + torch.tanh(math.sqrt(2 / math.pi) * (states + 0.044715 * states**3))) / 2
    positive = torch.where(states > 0, states, torch.zeros_like(states))
    return positive**2 if name == "relu2" else positive


def mlp(hidden_states: Tensor, weights: Mapping[str, Tensor], activation: str) -> Tensor:
    """down(activation(up(x)))."""
    return project(weights, "down_proj", activate(activation, project(weights, "up_proj", hidden_states)))


def gated_mlp(hidden_states: Tensor, weights: Mapping[str, Tensor], activation: str) -> Tensor:
    """down(activation(gate(x)) ⊙ up(x))."""
    gate = activate(activation, project(weights, "gate_proj", hidden_states))
    return project(weights, "down_proj", gate * project(weights, "up_proj", hidden_states))
