"""Compressed attention, one block, one head and one query at a time, over the whole sequence.

Source: DeepSeek-AI 2026, DeepSeek-V4, section 2.3, eq. 9–23; DeepSeek-V3.2, arXiv:2512.02556, eq. 1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.attention import project, sink_logits
from eulerstack_mixers.reference.norms import rmsnorm
from eulerstack_mixers.reference.positions import rotate


def turn_last(states: Tensor, positions: list[int], rope: Mapping[str, Any] | bool, width: int) -> Tensor:
    """Rotates the last int(width · partial_factor) channels of (time, channels)."""
    if not isinstance(rope, Mapping):
        return states
    rotated = int(width * rope["partial_factor"])
    still = states.shape[-1] - rotated
    turned = rotate(states[:, still:], positions, {**rope, "partial_factor": 1.0})
    return torch.cat((states[:, :still], turned), dim=-1)


def compressed_blocks(
    hidden_states: Tensor, weights: Mapping[str, Tensor], prefix: str, compression: Mapping[str, Any], eps: float
) -> list[Tensor]:
    """The complete blocks of a sequence before rotation, (width) each."""
    length, overlaps = compression["m_block"], compression["type"] == "csa"
    keys = project(weights, f"{prefix}.kv_proj", hidden_states)
    weighs = compression["pool"] == "softmax"
    scores = project(weights, f"{prefix}.gate_proj", hidden_states) if weighs else torch.zeros_like(keys)
    bias = weights[f"{prefix}.position_bias"] if weighs else torch.zeros_like(keys[:1]).expand(length, -1)
    width = keys.shape[1] // (2 if overlaps else 1)
    blocks = []
    for first in range(0, hidden_states.shape[0] - length + 1, length):
        # A token's last channels are for its own block, its first ones for the next.
        entries = [(keys[first + j, -width:], scores[first + j, -width:] + bias[j, -width:]) for j in range(length)]
        if overlaps and first > 0:
            before = first - length
            entries += [(keys[before + j, :width], scores[before + j, :width] + bias[j, :width]) for j in range(length)]
        shares = torch.stack([score for _, score in entries]).softmax(0)
        pooled = sum(share * key for share, (key, _) in zip(shares, entries, strict=True))
        blocks.append(rmsnorm(pooled, weights[f"{prefix}.kv_norm.weight"], eps))
    return blocks


def chosen_blocks(scores: list[Tensor], number: int) -> list[int]:
    """The indices of the `number` highest scores; of equal ones the earlier."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index].item(), index))[:number]


def compressed_attention(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    head_dim: int,
    eps: float,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model), without dropout; names and params as in the module."""
    time, rope, compression = hidden_states.shape[0], params["rope"], params["compression"]
    length, indexer = compression["m_block"] or time + 1, compression["indexer"]
    positions = list(range(time))
    source = hidden_states
    if params["q_latent_dim"] is None:
        queries = project(weights, "q_proj", hidden_states)
    else:
        source = rmsnorm(project(weights, "q_a_proj", hidden_states), weights["q_a_norm.weight"], eps)
        queries = project(weights, "q_b_proj", source)
    keys = rmsnorm(project(weights, "kv_proj", hidden_states), weights["kv_norm.weight"], eps)
    keys = turn_last(keys, positions, rope, head_dim)

    def placed(blocks: list[Tensor]) -> list[Tensor]:
        return [turn_last(block[None], [index * length], rope, head_dim)[0] for index, block in enumerate(blocks)]

    blocks = []
    if compression["type"] != "shared":
        blocks = placed(compressed_blocks(hidden_states, weights, "compressor", compression, eps))
    seen = [list(range((now + 1) // length)) for now in positions]
    if indexer is not None:
        index_keys = placed(compressed_blocks(hidden_states, weights, "indexer.compressor", compression, eps))
        index_queries = [
            turn_last(query, positions, rope, head_dim)
            for query in project(weights, "indexer.q_proj", source).chunk(indexer["n_heads"], dim=-1)
        ]
        shares = project(weights, "indexer.weights_proj", hidden_states)
        for now in positions:
            scores = [
                sum(
                    share * (query[now] @ index_keys[i]).relu()
                    for share, query in zip(shares[now], index_queries, strict=True)
                )
                for i in seen[now]
            ]
            seen[now] = chosen_blocks(scores, compression["top_k_blocks"])
    scale = head_dim**-0.5 if params["scale"] is None else params["scale"]
    heads = []
    for head, query in enumerate(queries.chunk(n_heads, dim=-1)):
        query = turn_last(rmsnorm(query, torch.ones_like(query[0]), eps), positions, rope, head_dim)
        sinks = sink_logits(weights, params, head)
        output = []
        for now in positions:
            near = [keys[then] for then in range(max(0, now - params["window"] + 1), now + 1)]
            visible = torch.stack([*near, *(blocks[index] for index in seen[now])])
            scores = visible @ query[now] * scale
            if params["softcap"] is not None:
                scores = params["softcap"] * torch.tanh(scores / params["softcap"])
            shares = torch.cat((scores, torch.stack([sink.to(scores) for sink in sinks]) if sinks else scores[:0]))
            output.append(shares.softmax(0)[: len(visible)] @ visible)
        # Back by the query's own position.
        heads.append(turn_last(torch.stack(output), [-place for place in positions], rope, head_dim))
    mixed = torch.cat(heads, dim=-1)
    if params["o_latent_dim"] is None:
        return project(weights, "o_proj", mixed)
    matrices = weights["o_a_proj.weight"].chunk(params["o_groups"])
    grouped = mixed.chunk(params["o_groups"], dim=-1)
    inner = torch.cat([part @ matrix.T for part, matrix in zip(grouped, matrices, strict=True)], dim=-1)
    return project(weights, "o_b_proj", inner)
