"""Retrieval memory: attention over the nearest of a bounded number of stored tokens.

The last `slots` tokens before a token are stored as a key and a value a head. A token compares its query with all of
them, by the cosine, and attends to the `top_k` nearest, those included that are as near as the last of these to 1e-5:

    s_j = scale · cos(q_t, k_j)      y_t = W_O Σ_j softmax(s)_j v_j      scale = e^λ, learned for each head

A token with nothing before it reads zero. Time is computed in blocks, so that scores take (block + slots) a token.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys and values, (batch, slots, hidden), in the model's dtype, the newest last; tokens (batch,), how many there
        have been
Source: Wu et al. 2022, Memorizing Transformers, arXiv:2203.08913, section 3
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.memory import MemoryModule
from eulerstack_titans.modules.neural_memory import unit_vectors

RETRIEVAL_BLOCK = 128
RETRIEVAL_TIE = 1e-5
RETRIEVAL_SCALE = 10.0


class RetrievalMemory(MemoryModule):
    """Keys and values of the last tokens, read by the nearest."""

    surprise_name = "retrieval_memory"
    parameter_roles = {"o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__(params, layer_idx)
        width, hidden, self.n_heads = config.hidden_size, params["hidden"], config.num_attention_heads
        self.hidden, self.slots, self.top_k = hidden, params["slots"], params["top_k"]
        self.q_proj = nn.Linear(width, hidden, bias=False)
        self.k_proj = nn.Linear(width, hidden, bias=False)
        self.v_proj = nn.Linear(width, hidden, bias=False)
        self.o_proj = nn.Linear(hidden, width, bias=False)
        self.log_scale = nn.Parameter(torch.empty(self.n_heads))

    def initialize(self, initializer_range: float) -> None:
        """Cosines begin ten times as large, so that the nearest counts for more than the rest together."""
        initialization.constant_(self.log_scale, float(torch.tensor(RETRIEVAL_SCALE).log()))

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = hidden_states.shape[0]
        empty = hidden_states.new_zeros(rows, self.slots, self.hidden, dtype=self.k_proj.weight.dtype)
        tokens = torch.zeros(rows, dtype=torch.long, device=hidden_states.device)
        return {"keys": empty, "values": empty, "tokens": tokens}

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        dtype = state["keys"].dtype
        queries = self.q_proj(hidden_states)
        keys, values = (projection(hidden_states).to(dtype) for projection in (self.k_proj, self.v_proj))
        ranks = state["tokens"][:, None] + valid.long().cumsum(-1) - 1
        stored = state["tokens"][:, None] + torch.arange(-self.slots, 0, device=ranks.device)
        all_keys, all_values = torch.cat((state["keys"], keys), 1), torch.cat((state["values"], values), 1)
        all_ranks = torch.cat((stored, ranks), 1)
        filled = torch.cat((stored >= 0, valid), 1)
        ids = None
        if sequence_ids is not None:
            ids = torch.cat((sequence_ids[:, :1].expand(-1, self.slots), sequence_ids), 1)
        with torch.autocast(hidden_states.device.type, enabled=False):
            pieces = []
            for start in range(0, valid.shape[1], RETRIEVAL_BLOCK):
                stop = min(start + RETRIEVAL_BLOCK, valid.shape[1])
                seen = slice(start, self.slots + stop)
                own = slice(start, stop)
                visible = filled[:, None, seen] & (all_ranks[:, None, seen] < ranks[:, own, None])
                visible = visible & (all_ranks[:, None, seen] >= ranks[:, own, None] - self.slots)
                if ids is not None and sequence_ids is not None:
                    visible = visible & (ids[:, None, seen] == sequence_ids[:, own, None])
                pieces.append(self.look_up(queries[:, own], all_keys[:, seen], all_values[:, seen], visible))
            outputs = torch.cat(pieces, dim=1)
        total = state["tokens"] + valid.sum(-1)
        places = all_ranks - total[:, None] + self.slots
        # What is padding, or older than the store goes back, lands behind the last slot.
        places = torch.where(filled & (places >= 0), places, self.slots).unsqueeze(-1).expand_as(all_keys)
        kept = all_keys.new_zeros(all_keys.shape[0], self.slots + 1, self.hidden)
        after = {
            name: kept.scatter(1, places, entries)[:, : self.slots]
            for name, entries in (("keys", all_keys), ("values", all_values))
        }
        return self.o_proj(outputs.to(hidden_states.dtype)), {**after, "tokens": total}

    def look_up(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """What queries (batch, time, hidden) read of entries (batch, entries, hidden), (batch, time, hidden).

        `visible` (batch, time, entries) says which entries are there for a query.
        """
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries, keys, values = (
            each.to(dtype).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for each in (queries, keys, values)
        )
        shown = visible.unsqueeze(1)
        cosines = unit_vectors(queries) @ unit_vectors(keys).mT
        ranked = cosines.detach().masked_fill(~shown, -torch.inf)
        nearest = ranked.topk(min(self.top_k, ranked.shape[-1]), dim=-1).values[..., -1:]
        chosen = shown & (ranked >= nearest - RETRIEVAL_TIE)
        scores = cosines * self.log_scale.to(dtype).exp()[:, None, None]
        scores = scores.masked_fill(~chosen, torch.finfo(dtype).min)
        # Where nothing is visible all weights are equal and all of them are dropped.
        weights = torch.softmax(scores, dim=-1) * chosen
        return (weights @ values).transpose(1, 2).flatten(2)

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Stores the row's tokens; the surprise is how far what their keys find in the store is from their values."""
        filled = state["tokens"][:, None] + torch.arange(-self.slots, 0, device=valid.device) >= 0
        shown = filled[:, None, :].expand(-1, valid.shape[1], -1)
        with torch.autocast(hidden_states.device.type, enabled=False):
            found = self.look_up(self.k_proj(hidden_states), state["keys"], state["values"], shown)
        errors = (self.v_proj(hidden_states).to(found.dtype) - found).square().sum(-1) * valid
        _, after = self.learn_and_read(hidden_states, state, state, valid, None, True)
        return after, errors.sum(-1) / valid.sum(-1).clamp(min=1)
