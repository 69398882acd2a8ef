"""ALiBi: a penalty on attention scores that grows with the distance, at a slope of its own for every head.

Shapes: query and key indices (time), (context) -> bias (n_heads, time, context), added to the scores
Cost:   no parameters
Source: Press et al. 2021, arXiv:2108.12409, section 3
"""

import math
from typing import Any

import torch
from torch import nn


def alibi_slopes(n_heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), … for n a power of two; otherwise those of the next smaller power, then every other one
    of the next larger."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / power) for head in range(power)]
    return slopes + [2.0 ** (-4.0 * (2 * head + 1) / power) for head in range(n_heads - power)]


class AlibiBias(nn.Module):
    """Computes the bias from the number of heads; it holds nothing."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.n_heads = config.num_attention_heads

    def attention_bias(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """-slope·(query - key) in float32; indices count tokens of the cache, padding included."""
        slopes = torch.tensor(alibi_slopes(self.n_heads), device=keys.device)
        distance = (keys[None, :] - queries[:, None]).float()
        return slopes[:, None, None] * distance
