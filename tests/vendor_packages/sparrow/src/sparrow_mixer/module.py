"""Each token and the one before it. (batch, time, d_model) -> (batch, time, d_model); state: the last token."""

from typing import Any

import torch
from torch import nn


class SparrowShift(nn.Module):
    """Two projections, of which the second sees the token before."""

    parameter_roles = {"past_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx, self.amount = layer_idx, params["amount"]
        self.now_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.past_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if attention_mask is not None:
            # Padding is no token before anything.
            hidden_states = hidden_states * attention_mask.unsqueeze(-1).to(hidden_states.dtype)
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        last = None if cache is None else cache.get("last")
        before = torch.zeros_like(hidden_states[:, :1]) if last is None else last.unsqueeze(1)
        past = torch.cat((before, hidden_states[:, :-1]), dim=1)
        if position_ids is not None:
            # Position 0 begins a new sequence.
            past = past.masked_fill((position_ids == 0).unsqueeze(-1), 0.0)
        if cache is not None:
            cache.put("last", hidden_states[:, -1])
            cache.advance(hidden_states.shape[1])
        return self.now_proj(hidden_states) + self.amount * self.past_proj(past)
