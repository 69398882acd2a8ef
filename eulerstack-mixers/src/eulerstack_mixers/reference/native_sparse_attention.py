"""Native sparse attention, one head and one query at a time, over the whole sequence.

Source: Yuan et al. 2025, arXiv:2502.11089, eq. 5–12
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.attention import project
from eulerstack_mixers.reference.compressed_attention import chosen_blocks
from eulerstack_mixers.reference.positions import rotate


def pool(states: Tensor, weights: Mapping[str, Tensor], name: str, kind: str) -> Tensor:
    """One vector for a block's, (length, head_dim) -> (head_dim)."""
    if kind == "mean":
        return states.mean(0)
    placed = (states + weights[f"{name}.positions"]).reshape(-1)
    inner = project(weights, f"{name}.up_proj", placed)
    return project(weights, f"{name}.down_proj", inner * torch.sigmoid(inner))


def read(query: Tensor, keys: list[Tensor], values: list[Tensor], scale: float, softcap: float | None) -> Any:
    """The weighted mean of values, and the weights; zeros where there is nothing to read."""
    if not keys:
        return torch.zeros_like(query), query.new_zeros(0)
    scores = torch.stack([key @ query for key in keys]) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.softmax(0)
    return (weights[:, None] * torch.stack(values)).sum(0), weights


def native_sparse_attention(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model), without dropout; names and params as in the module."""
    time, rope, compression = hidden_states.shape[0], params["rope"], params["compression"]
    length, stride, wide = (compression[word] for word in ("m_block", "stride", "select_block"))
    scale = head_dim**-0.5 if params["scale"] is None else params["scale"]
    softcap, group = params["softcap"], n_heads // n_kv_heads
    queries = project(weights, "q_proj", hidden_states).chunk(n_heads, dim=-1)
    sets = 1 if compression["shared_kv"] else 3
    all_keys = project(weights, "k_proj", hidden_states).chunk(sets * n_kv_heads, dim=-1)
    all_values = project(weights, "v_proj", hidden_states).chunk(sets * n_kv_heads, dim=-1)
    gates = torch.sigmoid(project(weights, "g_proj", hidden_states)).chunk(n_heads, dim=-1)

    def turned(states: Tensor, positions: list[int]) -> Tensor:
        return rotate(states, positions, rope) if rope else states

    outputs: list[Any] = [None] * n_heads
    for shared in range(n_kv_heads):
        members = range(shared * group, (shared + 1) * group)
        keys = [all_keys[reading % sets * n_kv_heads + shared] for reading in range(3)]
        values = [all_values[reading % sets * n_kv_heads + shared] for reading in range(3)]
        pooled_keys, pooled_values = [], []
        for first in range(0, time - length + 1, stride):
            of_block = slice(first, first + length)
            key = pool(keys[0][of_block], weights, "k_pool", compression["pool"])
            pooled_keys.append(turned(key[None], [first])[0])
            pooled_values.append(pool(values[0][of_block], weights, "v_pool", compression["pool"]))
        places = list(range(time))
        keys = [turned(each, places) for each in keys]
        rotated = {head: turned(queries[head], places) for head in members}
        rows: dict[int, list[Tensor]] = {head: [] for head in members}
        for now in places:
            complete = [index for index in range(len(pooled_keys)) if index * stride + length - 1 <= now]
            compressed = {
                head: read(
                    rotated[head][now],
                    [pooled_keys[index] for index in complete],
                    [pooled_values[index] for index in complete],
                    scale,
                    softcap,
                )
                for head in members
            }
            importance = []
            for block in range(now // wide + 1):
                score = torch.zeros((), dtype=hidden_states.dtype)
                for index in complete:
                    common = min(index * stride + length, (block + 1) * wide) - max(index * stride, block * wide)
                    for head in members:
                        score = score + compressed[head][1][index] * max(0, common) / stride
                always = block == 0 or block >= now // wide - 1
                importance.append(torch.full_like(score, float("inf")) if always else score)
            chosen = chosen_blocks(importance, compression["top_k_blocks"])
            selected = [then for then in range(now + 1) if then // wide in chosen]
            near = list(range(max(0, now - params["window"] + 1), now + 1))
            for head in members:
                readings = [compressed[head][0]]
                for reading, seen in ((1, selected), (2, near)):
                    kept = [keys[reading][then] for then in seen], [values[reading][then] for then in seen]
                    readings.append(read(rotated[head][now], *kept, scale, softcap)[0])
                rows[head].append(sum(gate * each for gate, each in zip(gates[head][now], readings, strict=True)))
        for head in members:
            outputs[head] = torch.stack(rows[head])
    return project(weights, "o_proj", torch.cat(outputs, dim=-1))
