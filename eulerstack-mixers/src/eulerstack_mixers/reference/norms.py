"""Norms from their definitions. Shapes: (…, width) -> (…, width).

Source: RMSNorm, arXiv:1910.07467; LayerNorm, arXiv:1607.06450
"""

from __future__ import annotations

from torch import Tensor


def rmsnorm(states: Tensor, weight: Tensor, eps: float, zero_centered: bool = False) -> Tensor:
    """states / √(mean of squares + eps) · weight; a zero-centred weight is stored as its offset from 1."""
    mean_square = (states * states).sum(-1, keepdim=True) / states.shape[-1]
    return states / (mean_square + eps).sqrt() * (weight + 1 if zero_centered else weight)


def layernorm(states: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """(states − mean) / √(variance + eps) · weight + bias, the variance taken over all channels."""
    centred = states - states.sum(-1, keepdim=True) / states.shape[-1]
    variance = (centred * centred).sum(-1, keepdim=True) / states.shape[-1]
    normed = centred / (variance + eps).sqrt() * weight
    return normed if bias is None else normed + bias
