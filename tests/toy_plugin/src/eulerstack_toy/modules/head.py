"""A head with a bottleneck and the z-loss.

Shapes: hidden_states (batch, time, d_model) -> logits (batch, time, vocab_size)
Cost:   rank·(d_model + vocab_size) parameters; without a rank none but the model's lm_head
Source: z-loss: PaLM, arXiv:2204.02311, section 5
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class ToyLowRankHead(nn.Module):
    """up(down(x)), or the model's lm_head where the spec gives no rank."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.z_loss = params["z_loss"]
        self.rank = params["rank"]
        if self.rank is not None:
            self.down_proj = nn.Linear(config.hidden_size, self.rank, bias=False)
            self.up_proj = nn.Linear(self.rank, config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Linear:
        """The matrix that has a row a token."""
        return self.up_proj

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces it, when the vocabulary is resized."""
        self.up_proj = new_embeddings

    def forward(
        self, hidden_states: torch.Tensor, lm_head: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> torch.Tensor:
        if lm_head is not None:
            return lm_head(hidden_states)
        return self.up_proj(self.down_proj(hidden_states))

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        loss_function: Callable[..., torch.Tensor],
        hidden_states: torch.Tensor,
        lm_head: Callable[[torch.Tensor], torch.Tensor] | None,
        batch: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """transformers' next-token loss and the z-loss, both as means over the predicted tokens.

        With `num_items_in_batch` they are sums over that many tokens, so that accumulated gradients are those of one
        large batch.
        """
        loss = loss_function(
            logits=logits, labels=labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items_in_batch, **kwargs
        )
        predicted = nn.functional.pad(labels[:, 1:], (0, 1), value=-100) != -100
        squares = torch.logsumexp(logits.float(), dim=-1).square() * predicted
        return loss + self.z_loss * squares.sum() / (
            predicted.sum() if num_items_in_batch is None else num_items_in_batch
        )
