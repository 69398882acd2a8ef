"""Multi-scale retention, one token and one head at a time.

Source: Sun et al. 2023, arXiv:2307.08621, eq. 6 (recurrence) and 8 (heads, norm, gate)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def turn(head: Tensor, position: int, theta: float) -> Tensor:
    """Neighbouring channels as complex numbers, times e^(i·position·theta^-p) for p from 0 to 1; (head_dim)."""
    exponents = torch.linspace(0, 1, head.shape[-1] // 2, dtype=head.dtype)
    angles = position * theta**-exponents
    pairs = torch.view_as_complex(head.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def retention(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    n_kv_heads: int,
    norm_eps: float = 1e-5,
    positions: list[int] | None = None,
    theta: float = 10000.0,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model); `weights` are named as in the module (`q_proj.weight`, …)."""
    queries, keys, values = (hidden_states @ weights[f"{name}_proj.weight"].T for name in "qkv")
    key_dim, value_dim = queries.shape[-1] // n_heads, values.shape[-1] // n_kv_heads
    heads = []
    for head in range(n_heads):
        shared = head // (n_heads // n_kv_heads)
        decay = 1 - 2.0 ** (-5 - head)
        state = hidden_states.new_zeros(key_dim, value_dim)
        outputs = []
        for token in range(hidden_states.shape[0]):
            query = queries[token, head * key_dim : (head + 1) * key_dim]
            key = keys[token, shared * key_dim : (shared + 1) * key_dim]
            value = values[token, shared * value_dim : (shared + 1) * value_dim]
            if params["rope"]:
                position = token if positions is None else positions[token]
                query, key = turn(query, position, theta), turn(key, position, theta)
            state = decay * state + torch.outer(key * key_dim**-0.5, value)
            output = query @ state
            deviation = output - output.mean()
            outputs.append(deviation / (deviation.square().mean() + norm_eps).sqrt())
        heads.append(torch.stack(outputs))
    mixed = torch.cat(heads, dim=-1)
    if params["gate"]:
        gate = hidden_states @ weights["g_proj.weight"].T
        mixed = mixed * gate * torch.sigmoid(gate)
    return mixed @ weights["o_proj.weight"].T
