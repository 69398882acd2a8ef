"""A gated exponential moving average: W_out(h ⊙ silu(W_gate x)), h_t = a ⊙ h_{t-1} + (1 - a) ⊙ W_in x_t.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  h, (batch, d_model) in float32 at least; its size does not grow with time
Cost:   parameters 3·d² + d; FLOPs per token 6·d² + 4·d
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


def scan_averages(inputs: torch.Tensor, decays: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """h_t = decays_t ⊙ h_{t-1} + inputs_t for every t at once, in log2(time) steps.

    Shapes: inputs, decays (batch, time, d_model), state h_{-1} (batch, d_model) -> (batch, time, d_model)
    """
    reach = 1
    while reach < inputs.shape[1]:
        # Token t holds the sum over its last `reach` tokens, and takes over the one that ends where its own begins.
        inputs = torch.cat((inputs[:, :reach], inputs[:, reach:] + decays[:, reach:] * inputs[:, :-reach]), dim=1)
        decays = torch.cat((decays[:, :reach], decays[:, reach:] * decays[:, :-reach]), dim=1)
        reach *= 2
    return inputs + decays * state.unsqueeze(1)


class ToyEMA(nn.Module):
    """Each channel forgets at a learned rate; the rate begins at the declared half-life."""

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.half_life = params["half_life"]
        width = config.hidden_size
        self.in_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.decay_logit = nn.Parameter(torch.empty(width))

    def initialize(self, initializer_range: float) -> None:
        """Sets decay_logit so that its sigmoid, the decay, is 2^(-1 / half_life)."""
        decay = 2.0 ** (-1.0 / self.half_life)
        initialization.constant_(self.decay_logit, math.log(decay / (1.0 - decay)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        # A decay near 1 can't be told from 1 in bfloat16, so the recurrence runs in float32, or in float64 if asked to.
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        decay = torch.sigmoid(self.decay_logit.to(precise))
        inputs = (1 - decay) * self.in_proj(hidden_states).to(precise)
        decays = decay.expand_as(inputs)
        if position_ids is not None:
            # Position 0 begins a new sequence, also in the middle of a packed batch.
            decays = decays.masked_fill((position_ids == 0).unsqueeze(-1), 0.0)
        if attention_mask is not None:
            padding = (attention_mask == 0).unsqueeze(-1)
            inputs, decays = inputs.masked_fill(padding, 0.0), decays.masked_fill(padding, 1.0)

        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        state = None if cache is None else cache.get("average")
        averages = scan_averages(inputs, decays, torch.zeros_like(inputs[:, 0]) if state is None else state)
        if cache is not None:
            cache.put("average", averages[:, -1])
            cache.advance(hidden_states.shape[1])
        gate = nn.functional.silu(self.gate_proj(hidden_states))
        return self.out_proj(averages.to(hidden_states.dtype) * gate)
