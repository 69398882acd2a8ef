"""Attention sinks: logits of a head that take a share of every softmax and bring no value.

Shapes: queries, of which only the device and the type count -> (n_heads,), the logarithm of what a head's sinks add to
        the sum below the softmax's fraction
Cost:   n_heads·n_per_head parameters where they are learned; none where each logit is 0
Source: Xiao et al. 2023, arXiv:2309.17453, section 3.3 (a sink of logit 0); learned ones: OpenAI 2025, gpt-oss,
        arXiv:2508.10925
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


class AttentionSinks(nn.Module):
    """The sinks of one layer. Those of a head act through the sum of their exponentials alone."""

    def __init__(self, n_heads: int, params: dict[str, Any]):
        super().__init__()
        self.n_heads, self.n_per_head = n_heads, params["n_per_head"]
        self.logits = nn.Parameter(torch.empty(n_heads, self.n_per_head)) if params["learnable"] else None

    def initialize(self, initializer_range: float) -> None:
        if self.logits is not None:
            initialization.normal_(self.logits, mean=0.0, std=initializer_range)

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        precise = torch.promote_types(query.dtype, torch.float32)
        if self.logits is None:
            return torch.full((self.n_heads,), math.log(self.n_per_head), dtype=precise, device=query.device)
        return self.logits.to(precise).logsumexp(-1)
