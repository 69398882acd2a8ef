"""Merges of streams, naively: one sequence, one token after another.

Shapes: streams (streams, time, d_model) -> (time, d_model); weights by the names of the module's parameters
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Weights = Mapping[str, torch.Tensor]


def _projected(merged: torch.Tensor, weights: Weights) -> torch.Tensor:
    matrix = weights.get("projection.weight")
    return merged if matrix is None else matrix @ merged


def concat(streams: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Each token's streams one after another, through the matrix."""
    return torch.stack([_projected(streams[:, time].reshape(-1), weights) for time in range(streams.shape[1])])


def add(streams: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Each token's streams, added."""
    merged = []
    for time in range(streams.shape[1]):
        total = torch.zeros_like(streams[0, 0])
        for stream in streams:
            total = total + stream[time]
        merged.append(_projected(total, weights))
    return torch.stack(merged)


def gated(streams: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Each token's streams, weighted by exp(logit) over the sum of these."""
    merged = []
    for time in range(streams.shape[1]):
        shares = torch.exp(weights["gate.weight"] @ streams[:, time].reshape(-1))
        total = torch.zeros_like(streams[0, 0])
        for stream, share in zip(streams, shares / shares.sum(), strict=True):
            total = total + share * stream[time]
        merged.append(_projected(total, weights))
    return torch.stack(merged)


def cross_attn(
    streams: torch.Tensor, weights: Weights, source: int, target: int, n_heads: int, n_kv_heads: int, eps: float
) -> torch.Tensor:
    """The target stream plus, for each of its tokens, a mean of the source's values up to that token."""

    def normed(state: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return state / torch.sqrt((state * state).mean() + eps) * weight

    merged = []
    keys, values = [], []
    for time in range(streams.shape[1]):
        context = normed(streams[source, time], weights["attention.context_norm.weight"])
        keys.append((weights["attention.k_proj.weight"] @ context).view(n_kv_heads, -1))
        values.append((weights["attention.v_proj.weight"] @ context).view(n_kv_heads, -1))
        state = streams[target, time]
        query = (weights["attention.q_proj.weight"] @ normed(state, weights["attention.query_norm.weight"])).view(
            n_heads, -1
        )
        heads = []
        for head in range(n_heads):
            group = head // (n_heads // n_kv_heads)
            scores = torch.stack([query[head] @ key[group] for key in keys]) * query.shape[-1] ** -0.5
            shares = torch.exp(scores - scores.max())
            shares = shares / shares.sum()
            heads.append(sum(share * value[group] for share, value in zip(shares, values, strict=True)))
        output = torch.cat(heads)
        matrix = weights.get("attention.o_proj.weight")
        merged.append(state + (output if matrix is None else matrix @ output))
    return torch.stack(merged)
