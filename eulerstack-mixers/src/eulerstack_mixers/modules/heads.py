"""The output head: the model's `lm_head`, and what is done to its logits.

Shapes: hidden_states (batch, time, d_model) -> logits (batch, time, vocab_size)
Cost:   vocab_size·d_model parameters, none when tied to the embedding
Source: tying: Press & Wolf 2016, arXiv:1608.05859; softcap: Gemma 2, arXiv:2408.00118
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class CausalLMHead(nn.Module):
    """softcap(scale · logits). The matrix is the model's own `lm_head`, where resizing and offloading find it."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.scale = params["logit_scale"]
        self.softcap = params["logit_softcap"]

    def forward(self, hidden_states: torch.Tensor, lm_head: Callable[..., torch.Tensor]) -> torch.Tensor:
        logits = lm_head(hidden_states)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits
