"""RMSNorm and LayerNorm over the last axis.

Shapes: (…, width) -> (…, width)
Cost:   width parameters, twice that for a LayerNorm with bias
Source: Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450; zero-centred weights: Gemma,
        arXiv:2403.08295
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization


class RMSNorm(nn.Module):
    """x / rms(x) · w, in float32 inside; with `zero_centered` the stored weight is w - 1."""

    def __init__(self, width: int, params: dict[str, Any]):
        super().__init__()
        self.width = (width,)
        self.eps = params["eps"]
        self.zero_centered = params["zero_centered"]
        self.weight = nn.Parameter(torch.zeros(width) if self.zero_centered else torch.ones(width))

    def initialize(self, initializer_range: float) -> None:
        initialization.constant_(self.weight, 0.0 if self.zero_centered else 1.0)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.zero_centered and hidden_states.dtype == self.weight.dtype:
            return nn.functional.rms_norm(hidden_states, self.width, self.weight, self.eps)
        # At least float32, for 1 + w and for norms that are kept in float32 beside lower-precision activations.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        weight = self.weight.to(dtype)
        if self.zero_centered:
            weight = 1.0 + weight
        return nn.functional.rms_norm(hidden_states.to(dtype), self.width, weight, self.eps).to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{self.width[0]}, eps={self.eps}, zero_centered={self.zero_centered}"


class LayerNorm(nn.LayerNorm):
    """(x - mean) / std · w + b; b only where the spec asks for it."""

    def __init__(self, width: int, params: dict[str, Any]):
        super().__init__(width, eps=params["eps"], bias=params["bias"])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # A norm may be kept in float32 beside lower-precision activations.
        return super().forward(hidden_states.to(self.weight.dtype)).to(hidden_states.dtype)
