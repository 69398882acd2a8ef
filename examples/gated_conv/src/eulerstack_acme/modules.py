"""out(c ⊙ Σ_j w_j ⊙ (b ⊙ x)_{t-j}), where b, c and x are projections of the token and j runs over the last tokens.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  the last kernel - 1 products b ⊙ x, (batch, kernel - 1, d_model)
"""

import torch
from torch import nn
from transformers import initialization


class GatedConv(nn.Module):
    def __init__(self, config, params, layer_idx):
        super().__init__()
        self.layer_idx, self.kernel = layer_idx, params["kernel"]
        self.in_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.weight = nn.Parameter(torch.empty(self.kernel, config.hidden_size))

    def initialize(self, initializer_range):
        initialization.normal_(self.weight, std=self.kernel**-0.5)

    def forward(self, hidden_states, position_ids, past_key_values=None, **kwargs):
        b, c, x = self.in_proj(hidden_states).chunk(3, dim=-1)
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        before = None if cache is None else cache.get("products")
        before = x.new_zeros(len(x), self.kernel - 1, x.shape[-1]) if before is None else before
        products = torch.cat((before, b * x), dim=1)
        if cache is not None:
            cache.put("products", products[:, 1 - self.kernel :])
            cache.advance(x.shape[1])
        total = torch.zeros_like(x)
        for j in range(self.kernel):
            reached = products[:, self.kernel - 1 - j :][:, : x.shape[1]]
            # Positions count neither padding nor the sequences packed before, so that t - j < 0 is neither's.
            total = total + self.weight[j] * reached * (position_ids >= j).unsqueeze(-1)
        return self.out_proj(c * total)
