"""The output head from its definition. Shapes: (…, d_model) -> (…, vocab_size)."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_lm(
    hidden_states: Tensor, weight: Tensor, logit_scale: float = 1.0, logit_softcap: float | None = None
) -> Tensor:
    """Logits: the products with every row of `weight`, scaled, then capped."""
    logits = hidden_states @ weight.T * logit_scale
    return logits if logit_softcap is None else logit_softcap * torch.tanh(logits / logit_softcap)
