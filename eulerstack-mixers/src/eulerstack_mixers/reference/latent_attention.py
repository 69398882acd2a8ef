"""Latent attention, one head and one query at a time, with keys and values written out.

Source: DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, eq. 37–47
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.attention import attend, project, sink_logits
from eulerstack_mixers.reference.norms import rmsnorm
from eulerstack_mixers.reference.positions import alibi_slopes, rotate


def latent_attention(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    head_dim: int,
    positions: list[int] | None = None,
    alibi: bool = False,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model), without dropout; names and params as in the module."""
    time = hidden_states.shape[0]
    positions = list(range(time)) if positions is None else positions
    latent_dim, eps = params["latent_dim"], params["latent_norm_eps"]
    if params["q_latent_dim"] is None:
        queries = project(weights, "q_proj", hidden_states)
    else:
        q_latent = rmsnorm(project(weights, "q_a_proj", hidden_states), weights["q_a_norm.weight"], eps)
        queries = project(weights, "q_b_proj", q_latent)
    kept = project(weights, "kv_a_proj", hidden_states)
    latent = rmsnorm(kept[:, :latent_dim], weights["kv_a_norm.weight"], eps)
    turned = (lambda states: rotate(states, positions, params["rope"])) if params["rope"] else (lambda states: states)
    shared = turned(kept[:, latent_dim:])
    per_head = project(weights, "kv_b_proj", latent).chunk(n_heads, dim=-1)
    outputs = []
    for head, query in enumerate(queries.chunk(n_heads, dim=-1)):
        query = torch.cat((query[:, :head_dim], turned(query[:, head_dim:])), dim=-1)
        key = torch.cat((per_head[head][:, :head_dim], shared), dim=-1)
        value = per_head[head][:, head_dim:]
        slope, sinks = alibi_slopes(n_heads)[head] if alibi else 0.0, sink_logits(weights, params, head)
        outputs.append(
            torch.stack(
                [
                    attend(query[now], key, value, now, params["scale"], slope, params, sinks, positions)
                    for now in range(time)
                ]
            )
        )
    return project(weights, "o_proj", torch.cat(outputs, dim=-1))
