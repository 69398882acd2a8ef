"""Causal attention, one query at a time.

Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouped queries, arXiv:2305.13245; softcap, arXiv:2408.00118;
        dilated windows, arXiv:2004.05150; sinks, arXiv:2309.17453 and arXiv:2508.10925
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
        sinks = sink_logits(weights, params, head)
        outputs.append(
            torch.stack(
                [attend(query[now], key, value, now, scale, slope, params, sinks, positions) for now in range(time)]
            )
        )
    return project(weights, "o_proj", torch.cat(outputs, dim=-1))


def sink_logits(weights: Mapping[str, Tensor], params: Mapping[str, Any], head: int) -> list[Tensor]:
    """The logits of a head's sinks."""
    sinks = params.get("attention_sinks")
    if sinks is None:
        return []
    if not sinks["learnable"]:
        return [torch.zeros(())] * sinks["n_per_head"]
    return list(weights["sinks.logits"][head])


def visible(now: int, params: Mapping[str, Any]) -> list[int]:
    """The tokens that token `now` attends to."""
    first = 0 if params["window"] is None else max(0, now - params["window"] + 1)
    step = params.get("window_dilation") or 1
    return [then for then in range(first, now + 1) if (now - then) % step == 0]


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    now: int,
    scale: float,
    slope: float,
    params: Mapping[str, Any],
    sinks: list[Tensor],
    positions: list[int],
) -> Tensor:
    """The mean of the visible values, weighted by the softmax of their scores and the sinks'; (head_dim)."""
    scores, seen = [], visible(now, params)
    for then in seen:
        score = (query * keys[then]).sum() * scale
        if params["softcap"] is not None:
            score = params["softcap"] * torch.tanh(score / params["softcap"])
        scores.append(score - slope * (positions[now] - positions[then]))
    shares = torch.stack([*scores, *(sink.to(scores[0]) for sink in sinks)]).softmax(0)
    return torch.stack([shares[index] * values[then] for index, then in enumerate(seen)]).sum(0)
