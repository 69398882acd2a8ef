"""One key for a block of tokens: the mean of what its tokens make, weighted by a softmax over learned scores.

C_i = RMSNorm(Σ_j softmax_j(Z_j + B_j) ⊙ C_j), channel by channel, over the tokens j of block i; with `overlaps` over
those of the block before it too, for which a token has keys and scores of their own. `pool: mean` weighs all alike.

Shapes: hidden_states (batch, time, d_model) -> blocks (batch, blocks, width)
State:  keys and scores of the last m_block − 1 tokens; with overlaps, of the last 2·m_block − 1 those for the next
        block too; the blocks so far
Cost:   see the declaration
Source: DeepSeek-AI 2026, DeepSeek-V4, sections 2.3.1 and 2.3.2, eq. 9–12 and 20–23
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack_mixers.modules.norms import RMSNorm
from eulerstack_mixers.modules.positions_rope import apply_rotary
from eulerstack_mixers.modules.token_blocks import BlockLayout


def rotate_last(
    states: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor] | None, interleaved: bool
) -> torch.Tensor:
    """Rotates the last channels of every head, as many as `rotation` has; (batch, heads, time, head_dim)."""
    if rotation is None:
        return states
    still = states.shape[-1] - rotation[0].shape[-1]
    turned = apply_rotary(states[..., still:], *rotation, interleaved=interleaved)
    return torch.cat((states[..., :still], turned.to(states.dtype)), dim=-1) if still else turned.to(states.dtype)


class BlockCompressor(nn.Module):
    """Blocks of one kind: those that attention reads, or those that an indexer scores."""

    def __init__(
        self, config: Any, params: dict[str, Any], width: int, overlaps: bool, interleaved: bool, name: str = "block"
    ):
        super().__init__()
        self.width, self.interleaved, self.name = width, interleaved, name
        self.length = params["m_block"]
        # What a token makes for its own block and, where blocks overlap, before that for the next one.
        self.parts = 2 if overlaps else 1
        self.kv_proj = nn.Linear(config.hidden_size, self.parts * width, bias=False)
        self.weighs = params["pool"] == "softmax"
        if self.weighs:
            self.gate_proj = nn.Linear(config.hidden_size, self.parts * width, bias=False)
            self.position_bias = nn.Parameter(torch.empty(self.length, self.parts * width))
        norm = {"eps": config.architecture["model"]["norm_eps"], "zero_centered": False}
        self.kv_norm = RMSNorm(width, norm)

    def initialize(self, initializer_range: float) -> None:
        if self.weighs:
            initialization.zeros_(self.position_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        layout: BlockLayout,
        rotation: tuple[torch.Tensor, torch.Tensor] | None,
        kept: torch.dtype,
    ) -> torch.Tensor:
        """All blocks so far, in the number type `kept`. `rotation` is that of the new blocks' positions."""
        keys = self.kv_proj(hidden_states)
        scores = self.gate_proj(hidden_states) if self.weighs else None
        pooled = self.pooled(layout, keys, scores)
        turned = rotate_last(self.kv_norm(pooled).unsqueeze(1), rotation, self.interleaved)
        return layout.stored(self.name, turned.squeeze(1).to(kept))

    def pooled(self, layout: BlockLayout, keys: torch.Tensor, scores: torch.Tensor | None) -> torch.Tensor:
        """The weighted means of the new blocks, (batch, new blocks, width), in at least float32."""
        precise = torch.promote_types(keys.dtype, torch.float32)
        values, logits = [], []
        for part in range(self.parts):
            channels = slice(part * self.width, (part + 1) * self.width)
            # A token's last part is for its own block.
            reach = (self.parts - part) * self.length
            made = keys[..., channels]
            if scores is not None:
                made = torch.cat((made, scores[..., channels]), dim=-1)
            name = f"{self.name}_tail_{part}"
            extended = layout.rows.extended(name, made)
            layout.rows.remember(name, extended, reach - 1)
            # The block before lies in the first half of twice the length.
            gathered = layout.gathered(extended, reach)[:, :, : self.length].to(precise)
            values.append(gathered[..., : self.width])
            if scores is None:
                logit = torch.zeros_like(values[-1])
            else:
                logit = gathered[..., self.width :] + self.position_bias[:, channels].to(precise)
            inside = layout.within(reach)[:, :, : self.length, None]
            logits.append(logit if reach == self.length else logit.masked_fill(~inside, float("-inf")))
        weights = torch.cat(logits, dim=2).softmax(dim=2)
        return (weights * torch.cat(values, dim=2)).sum(dim=2)
