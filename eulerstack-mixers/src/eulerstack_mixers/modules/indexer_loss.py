"""What teaches an indexer: the divergence between attention's weights on the blocks it chose and its own scores.

L = mean over tokens of Σ_s p_ts · log(p_ts / q_ts), s over the blocks that token t sees; q_t is the softmax of its
scores of these, p_t attention's weights on them, summed over heads and divided by their sum. A choice has no gradient,
so this alone moves the indexer; p has none either, nor what the indexer reads, so nothing else is moved by it.

Shapes: scores and weights (batch, time, blocks), chosen (batch or 1, time, blocks)
Source: DeepSeek-AI 2025, DeepSeek-V3.2, arXiv:2512.02556, section 2.1.1, eq. 4 (the stage of sparse training)
"""

from typing import Any

import torch


@torch.no_grad()
def weights_on_blocks(
    query: torch.Tensor, key: torch.Tensor, visible: torch.Tensor, blocks: int, words: dict[str, Any]
) -> torch.Tensor:
    """Attention's weights on the last `blocks` keys, summed over heads, (batch, time, blocks).

    Shapes: query (batch, heads, time, width), key (batch, 1, keys, width), visible (batch or 1, 1, time, keys). `words`
    are the call's `scaling` and, where there are any, its `softcap` and the logits `s_aux` (heads) of its sinks.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    keys, hidden = key[:, 0].to(precise).transpose(1, 2), ~visible[:, 0]
    sinks, softcap = words.get("s_aux"), words.get("softcap")
    total = torch.zeros(query.shape[0], query.shape[2], blocks, dtype=precise, device=query.device)
    # A head at a time: together their weights would be as large as those of plain attention.
    for head in range(query.shape[1]):
        scores = query[:, head].to(precise) @ keys * words["scaling"]
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(hidden, torch.finfo(precise).min)
        if sinks is not None:
            scores = torch.cat((sinks[head].to(precise).expand(*scores.shape[:2], 1), scores), dim=-1)
        total += scores.softmax(-1)[..., scores.shape[-1] - blocks :]
    return total


def indexer_divergence(
    scores: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, own: torch.Tensor | None
) -> torch.Tensor:
    """L over the tokens that see a block; `own` (batch, time) is false at padding, None where there is none."""
    chosen = chosen.expand_as(scores)
    if own is not None:
        chosen = chosen & own.unsqueeze(-1)
    lowest, least = torch.finfo(scores.dtype).min, torch.finfo(scores.dtype).tiny
    weights = weights.to(scores.dtype).masked_fill(~chosen, 0.0)
    target = weights / weights.sum(-1, keepdim=True).clamp(min=least)
    guessed = scores.masked_fill(~chosen, lowest).log_softmax(-1)
    each = (target * (target.clamp(min=least).log() - guessed)).masked_fill(~chosen, 0.0).sum(-1)
    return each.sum() / chosen.any(-1).sum().clamp(min=1)
