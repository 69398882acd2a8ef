"""Causal attention, one query at a time.

Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouped queries, arXiv:2305.13245; softcap, arXiv:2408.00118
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.norms import rmsnorm
from eulerstack_mixers.reference.positions import alibi_slopes, rotate


def project(weights: Mapping[str, Tensor], name: str, states: Tensor) -> Tensor:
    """`states` through the projection called `name`, with its bias where there is one."""
    projected = states @ weights[f"{name}.weight"].T
    return projected + weights[f"{name}.bias"] if f"{name}.bias" in weights else projected


def attention(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    n_kv_heads: int,
    norm_eps: float = 1e-5,
    positions: list[int] | None = None,
    alibi: bool = False,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model), without dropout.

    `weights` are named as in the module (`q_proj.weight`, …), `params` are those of the IR. `positions` count from 0 by
    default.
    """
    time = hidden_states.shape[0]
    positions = list(range(time)) if positions is None else positions
    queries, keys, values = (project(weights, name, hidden_states) for name in ("q_proj", "k_proj", "v_proj"))
    if params["qk_norm"] == "full":
        queries = rmsnorm(queries, weights["q_norm.weight"], norm_eps)
        keys = rmsnorm(keys, weights["k_norm.weight"], norm_eps)
    head_dim = queries.shape[-1] // n_heads
    scale = head_dim**-0.5 if params["scale"] is None else params["scale"]
    outputs = []
    for head in range(n_heads):
        shared = head // (n_heads // n_kv_heads)
        query = queries[:, head * head_dim : (head + 1) * head_dim]
        key = keys[:, shared * head_dim : (shared + 1) * head_dim]
        value = values[:, shared * head_dim : (shared + 1) * head_dim]
        if params["qk_norm"] == "head":
            query = rmsnorm(query, weights["q_norm.weight"], norm_eps)
            key = rmsnorm(key, weights["k_norm.weight"], norm_eps)
        if params["rope"]:
            query, key = rotate(query, positions, params["rope"]), rotate(key, positions, params["rope"])
        slope = alibi_slopes(n_heads)[head] if alibi else 0.0
        outputs.append(torch.stack([_attend(query[now], key, value, now, scale, slope, params) for now in range(time)]))
    return project(weights, "o_proj", torch.cat(outputs, dim=-1))


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, now: int, scale: float, slope: float, params: Mapping[str, Any]
) -> Tensor:
    """The mean of the visible values, weighted by the softmax of their scores; (head_dim)."""
    first = 0 if params["window"] is None else max(0, now - params["window"] + 1)
    scores = []
    for then in range(first, now + 1):
        score = (query * keys[then]).sum() * scale
        if params["softcap"] is not None:
            score = params["softcap"] * torch.tanh(score / params["softcap"])
        scores.append(score - slope * (now - then))
    shares = (torch.stack(scores) - max(scores)).exp()
    shares = shares / shares.sum()
    return torch.stack([share * values[first + index] for index, share in enumerate(shares)]).sum(0)
