"""Associative memory: a matrix a head that is corrected towards what a key should give, by the gated delta rule.

With k, q the normalised projections of a token and v a third one, for every head

    a_t = 1 − σ(c·x_t + c₀)      β_t = inner_lr · σ(b·x_t + b₀)
    S_t = a_t S_{t−1} + β_t k_t (v_t − (a_t S_{t−1})ᵀ k_t)ᵀ      o_t = S_tᵀ q_t      y = W_O o

A chunk is computed at once: the corrections u_t = β_t (v_t − (a_t S_{t−1})ᵀ k_t) solve a triangular system. The length
of chunks changes nothing but speed.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  matrix, (batch, heads, key width, head_dim), in float32 (float64 for float64 inputs)
Source: Yang et al. 2024, arXiv:2412.06464, equation 10; Schlag et al. 2021, arXiv:2102.11174, section 4.2; the chunks:
        Yang et al. 2024, arXiv:2406.06484, section 3
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.memory import MemoryModule
from eulerstack_titans.modules.neural_memory import logit, unit_vectors

ASSOCIATIVE_CHUNK = 32


class AssociativeMemory(MemoryModule):
    """A matrix a head: what a key gives is corrected, not added to."""

    surprise_name = "associative_memory"
    parameter_roles = {"o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__(params, layer_idx)
        width, self.n_heads = config.hidden_size, config.num_attention_heads
        self.key_width, self.value_width = params["hidden"] // self.n_heads, config.head_dim
        self.inner_lr, self.forget = params["inner_lr"], params["forget"]
        self.q_proj = nn.Linear(width, params["hidden"], bias=False)
        self.k_proj = nn.Linear(width, params["hidden"], bias=False)
        self.v_proj = nn.Linear(width, self.n_heads * self.value_width, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.value_width, width, bias=False)
        # One row of gates a head for the rate, one for what is forgotten.
        self.gate_proj = nn.Linear(width, (2 if self.forget else 1) * self.n_heads, bias=False)
        self.gate_bias = nn.Parameter(torch.empty(self.gate_proj.out_features))

    def initialize(self, initializer_range: float) -> None:
        """The rate begins at half of inner_lr, forgetting where the spec says."""
        starts = [0.0] * self.n_heads + ([logit(self.forget)] * self.n_heads if self.forget else [])
        initialization.copy_(self.gate_bias, torch.tensor(starts, dtype=self.gate_bias.dtype))

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        shape = (hidden_states.shape[0], self.n_heads, self.key_width, self.value_width)
        return {"matrix": torch.zeros(shape, dtype=dtype, device=hidden_states.device)}

    def streams(self, hidden_states: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values (batch, heads, time, width), rates β (…, 1) and log a (…): 0 where no token is."""
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        queries, keys, values = (
            projection(hidden_states).to(dtype).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = (self.gate_proj(hidden_states).to(dtype) + self.gate_bias.to(dtype)).transpose(1, 2)
        counts = valid[:, None, :]
        rates = (self.inner_lr * torch.sigmoid(gates[:, : self.n_heads]) * counts).unsqueeze(-1)
        kept = torch.zeros_like(rates.squeeze(-1))
        if self.forget:
            kept = nn.functional.logsigmoid(-gates[:, self.n_heads :]).masked_fill(~counts, 0.0)
        silu = nn.functional.silu
        return unit_vectors(silu(queries)), unit_vectors(silu(keys)), silu(values), rates, kept

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        streams = self.streams(hidden_states, valid)
        with torch.autocast(hidden_states.device.type, enabled=False):
            matrix, pieces = state["matrix"], []
            ids = torch.zeros_like(valid, dtype=torch.long) if sequence_ids is None else sequence_ids
            last = ids[:, :1]
            chunks = zip(*(stream.split(ASSOCIATIVE_CHUNK, dim=2) for stream in streams), strict=True)
            for chunk, own in zip(chunks, ids.split(ASSOCIATIVE_CHUNK, dim=1), strict=True):
                # A sequence that begins in this chunk begins with an empty matrix.
                begins = None if sequence_ids is None else (own != last)[:, None, :, None]
                piece, matrix = self.learn_chunk(chunk, own, matrix, begins)
                pieces.append(piece)
                last = own[:, -1:]
            outputs = torch.cat(pieces, dim=2).transpose(1, 2).flatten(2)
        return self.o_proj(outputs.to(hidden_states.dtype)), {"matrix": matrix}

    def learn_chunk(
        self,
        chunk: tuple[torch.Tensor, ...],
        ids: torch.Tensor,
        matrix: torch.Tensor,
        begins: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the tokens of a chunk read, (batch, heads, tokens, head_dim), and the matrix after it.

        `begins`, (batch, 1, tokens, 1), says which tokens belong to sequences that begin in the chunk; `ids`,
        (batch, tokens), tells sequences apart.
        """
        queries, keys, values, rates, log_kept = chunk
        summed = log_kept.cumsum(-1)
        pairs = summed.unsqueeze(-1) - summed.unsqueeze(-2)
        hidden = torch.ones(pairs.shape[-2:], dtype=torch.bool, device=pairs.device).triu(1)
        if begins is None:
            kept = pairs.masked_fill(hidden, -torch.inf).exp()
            before = summed.unsqueeze(-1)
        else:
            hidden = hidden | (ids[:, None, :, None] != ids[:, None, None, :])
            kept = pairs.masked_fill(hidden, -torch.inf).exp()
            # The factors since the sequence's own first token in this chunk, that token's included.
            opening = (ids[:, :, None] == ids[:, None, :]).int().argmax(-1)[:, None, :].expand_as(summed)
            before = (summed - (summed - log_kept).gather(-1, opening)).unsqueeze(-1)
        left = before.exp()

        def of_matrix(vectors: torch.Tensor) -> torch.Tensor:
            """What the vectors read before the chunk, with what is left of it."""
            read = vectors @ matrix
            return left * (read if begins is None else read.masked_fill(begins, 0.0))

        links = (rates * (keys @ keys.mT) * kept).tril(-1)
        corrections = torch.linalg.solve_triangular(
            links + torch.eye(links.shape[-1], dtype=links.dtype, device=links.device),
            rates * (values - of_matrix(keys)),
            upper=False,
            unitriangular=True,
        )
        outputs = of_matrix(queries) + (queries @ keys.mT * kept) @ corrections
        start = matrix if begins is None else matrix.masked_fill(begins[:, :, -1:], 0.0)
        return outputs, left[:, :, -1:] * start + (kept[:, :, -1:].mT * keys).mT @ corrections

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The mean of the corrections that the row's tokens ask for, each of the matrix as it was."""
        _, keys, values, rates, log_kept = self.streams(hidden_states, valid)
        counts = valid.sum(-1).clamp(min=1)[:, None, None, None]
        before = state["matrix"]
        kept = (log_kept.exp() * valid[:, None, :]).sum(-1)[..., None, None] / counts
        errors = (values - keys @ before) * valid[:, None, :, None]
        matrix = kept * before + keys.mT @ (rates * (values - keys @ (kept * before))) / counts
        matrix = torch.where(valid.any(-1)[:, None, None, None], matrix, before)
        return {"matrix": matrix}, errors.square().sum((1, 2, 3)) / counts.view(-1)
