"""Native sparse attention: what a query reads of the past in three ways, each weighed by a gate of its own.

o_t = Σ_c σ(g_c(x_t)) · Attn(q_t, K_c, V_c) for c in compressed, selected, window. Compressed are all complete blocks of
m_block tokens, one beginning every `stride` tokens, each pooled into one key and one value. Selected are the tokens of
the top_k_blocks blocks of select_block tokens to which the compressed reading gives most weight, summed over the heads
that share keys; the first block, the query's own and the one before are always among them. Window are the last tokens.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys and values, n_kv_heads · 2 · head_dim numbers each time: of every token for the selected reading, of every
        complete block, of the last m_block − 1 tokens before they are pooled, and, unless shared_kv, of the last
        window − 1 tokens
Cost:   see the declaration
Source: Yuan et al. 2025, arXiv:2502.11089, eq. 5–12
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName
from eulerstack_mixers.modules.attention_calls import eager_attention
from eulerstack_mixers.modules.compressed_attention import highest_blocks
from eulerstack_mixers.modules.positions_rope import RotaryEmbedding, apply_rotary
from eulerstack_mixers.modules.token_blocks import BlockLayout, TokenRows
from eulerstack_mixers.modules.window_chunks import WindowChunks

# A history that forgets nothing.
ALL_TOKENS = 2**62


class MlpPool(nn.Module):
    """One vector for the vectors of a block: a two-layer perceptron over all of them and their places in the block.

    Shapes: (…, length, width) -> (…, width), the same for every head
    """

    def __init__(self, length: int, width: int):
        super().__init__()
        self.positions = nn.Parameter(torch.empty(length, width))
        self.up_proj = nn.Linear(length * width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)

    def initialize(self, initializer_range: float) -> None:
        initialization.zeros_(self.positions)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        placed = (states + self.positions.to(states.dtype)).flatten(-2)
        return self.down_proj(nn.functional.silu(self.up_proj(placed)))


class MeanPool(nn.Module):
    """The mean of a block's vectors, summed in at least float32; (…, length, width) -> (…, width)."""

    def __init__(self, length: int, width: int):
        super().__init__()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states.to(torch.promote_types(states.dtype, torch.float32)).mean(-2).to(states.dtype)


# How a block becomes one key and one value, by the compression's `pool`.
POOLS: ByName = {
    "mlp": MlpPool,
    "mean": MeanPool,
}


def block_overlaps(
    layout: BlockLayout, blocks: int, select_block: int, number: int, of_token: torch.Tensor
) -> torch.Tensor:
    """How many strides each of `blocks` pooled blocks has in common with each of `number` selectable ones.

    Shapes: of_token (batch or 1, tokens), the selectable block of each token -> (batch or 1, blocks, number)
    """
    device = of_token.device
    if layout.rows.sequence_ids is not None:
        places = (layout.ends[..., None] + torch.arange(1 - layout.length, 1, device=device)).clamp(min=0)
        of_blocks = of_token.gather(1, places.flatten(1)).unflatten(1, places.shape[1:])
        ones = torch.full(of_blocks.shape, 1 / layout.stride, device=device)
        return torch.zeros(*of_blocks.shape[:2], number, device=device).scatter_add(2, of_blocks, ones)
    begins = torch.arange(blocks, device=device)[:, None] * layout.stride
    chosen = torch.arange(number, device=device) * select_block
    ends = torch.minimum(begins + layout.length, chosen + select_block)
    return ((ends - torch.maximum(begins, chosen)).clamp(min=0) / layout.stride)[None]


class NativeSparseAttention(nn.Module):
    """The three readings of one layer."""

    parameter_roles = {"q_proj.weight": "query", "o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.n_heads, self.n_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5 if params["scale"] is None else params["scale"]
        self.softcap, self.attention_dropout, self.window = params["softcap"], params["attn_drop"], params["window"]
        compression, rope = params["compression"], params["rope"]
        self.length, self.stride = compression["m_block"], compression["stride"]
        self.select_block, self.top_k_blocks = compression["select_block"], compression["top_k_blocks"]
        self.interleaved = bool(rope) and rope["interleaved"]
        # Blocks stand at positions of their own.
        self.rotary = RotaryEmbedding(config, {**rope, "head_dim": self.head_dim}) if rope else None

        # One set of keys and values for each reading: compressed, selected, window.
        self.sets = 1 if compression["shared_kv"] else 3
        width, bias = config.hidden_size, params["qkv_bias"]
        self.q_proj = nn.Linear(width, self.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, self.sets * self.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, self.sets * self.n_kv_heads * self.head_dim, bias=bias)
        pool = POOLS[compression["pool"]]
        self.k_pool, self.v_pool = pool(self.length, self.head_dim), pool(self.length, self.head_dim)
        self.g_proj = nn.Linear(width, 3 * self.n_heads, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, width, bias=params["o_bias"])

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        rows = TokenRows(hidden_states, attention_mask, position_ids, sequence_ids, cache)
        layout = BlockLayout(rows, self.length, self.stride)
        hidden_states = rows.arranged(hidden_states)
        rotation, block_rotation = layout.rotations(self.rotary, hidden_states)

        heads = (self.sets, self.n_kv_heads, self.head_dim)
        query = self.q_proj(hidden_states).unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
        query = self.rotated(query, rotation)
        # (sets, batch, n_kv_heads, time, head_dim)
        keys = self.k_proj(hidden_states).unflatten(-1, heads).permute(2, 0, 3, 1, 4)
        values = self.v_proj(hidden_states).unflatten(-1, heads).permute(2, 0, 3, 1, 4)

        pooled = layout.stored("block", self.pooled(layout, keys[0], values[0], block_rotation))
        compressed, importance = self.read_blocks(query, layout, pooled)

        tokens = rows.extended(
            "selected", self.packed(self.rotated(keys[1 % self.sets], rotation), values[1 % self.sets])
        )
        rows.remember("selected", tokens, ALL_TOKENS)
        selected = self.read(query, tokens, self.selection(layout, tokens, pooled, importance))

        if self.sets > 1:
            tokens = rows.extended("window", self.packed(self.rotated(keys[2], rotation), values[2]))
            rows.remember("window", tokens, self.window - 1)
        chunks = WindowChunks(rows, tokens, self.window)
        if chunks.pays:
            near = chunks.restored(self.read(chunks.queries(query), chunks.keys(), chunks.visible()))
        else:
            near = self.read(query, tokens, rows.visible_tokens(tokens, self.window).unsqueeze(1))
        rows.finish()

        gates = self.g_proj(hidden_states).unflatten(-1, (self.n_heads, 3)).sigmoid()
        output = sum(
            gate * reading for gate, reading in zip(gates.split(1, dim=-1), (compressed, selected, near), strict=True)
        )
        return rows.restored(self.o_proj(output.flatten(2)))

    def rotated(self, states: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """(batch, heads, tokens, head_dim) turned by their positions."""
        return states if rotation is None else apply_rotary(states, *rotation, interleaved=self.interleaved)

    def packed(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Keys and values of (batch, n_kv_heads, tokens, head_dim) as they are kept, (batch, tokens, channels)."""
        return torch.cat((keys, values), dim=-1).transpose(1, 2).flatten(2)

    def unpacked(self, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The reverse of `packed`."""
        states = kept.unflatten(-1, (self.n_kv_heads, 2 * self.head_dim)).transpose(1, 2)
        return states[..., : self.head_dim], states[..., self.head_dim :]

    def pooled(
        self,
        layout: BlockLayout,
        keys: torch.Tensor,
        values: torch.Tensor,
        block_rotation: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The new blocks as they are kept, from keys that were not rotated."""
        extended = layout.rows.extended("block_tail", self.packed(keys, values))
        layout.rows.remember("block_tail", extended, self.length - 1)
        gathered = layout.gathered(extended, self.length).unflatten(-1, (self.n_kv_heads, 2 * self.head_dim))
        # (batch, n_kv_heads, new blocks, length, 2 · head_dim)
        gathered = gathered.permute(0, 3, 1, 2, 4)
        key = self.rotated(self.k_pool(gathered[..., : self.head_dim]), block_rotation)
        return self.packed(key.to(values.dtype), self.v_pool(gathered[..., self.head_dim :]))

    def capped(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores after the softcap, if there is one."""
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def read_blocks(
        self, query: torch.Tensor, layout: BlockLayout, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The compressed reading, (batch, time, n_heads, head_dim), and the weight of each block summed over the heads
        that share keys, (batch, n_kv_heads, time, blocks), in at least float32. Before the first block: zeros."""
        keys, values = self.unpacked(pooled)
        visible = layout.visible(pooled)[:, None, None]
        precise = torch.promote_types(query.dtype, torch.float32)
        grouped = query.unflatten(1, (self.n_kv_heads, -1))
        with torch.autocast(query.device.type, enabled=False):
            scores = self.capped(grouped.to(precise) @ keys.to(precise).transpose(-1, -2).unsqueeze(2) * self.scaling)
            weights = scores.masked_fill(~visible, torch.finfo(precise).min).softmax(dim=-1) * visible
        dropped = nn.functional.dropout(weights, p=self.attention_dropout, training=self.training)
        reading = dropped.to(values.dtype) @ values.unsqueeze(2)
        return reading.flatten(1, 2).transpose(1, 2), weights.detach().sum(dim=2)

    def selection(
        self, layout: BlockLayout, tokens: torch.Tensor, pooled: torch.Tensor, importance: torch.Tensor
    ) -> torch.Tensor:
        """Which tokens the selected reading sees, (batch, n_kv_heads, time, tokens)."""
        rows = layout.rows
        places = rows.key_places(tokens)
        if rows.sequence_ids is None:
            of_token = (places // self.select_block).clamp(min=0)
            number = -(-tokens.shape[1] // self.select_block)
        else:
            # Every sequence begins with a block of its own.
            of_token = (places % self.select_block == 0).long().cumsum(dim=1) - 1
            number = tokens.shape[1]
        own = of_token[:, -rows.time :, None]
        first = own - rows.places[..., None] // self.select_block
        blocks = torch.arange(number, device=tokens.device)
        reachable = ((blocks >= first) & (blocks <= own)).unsqueeze(1)
        always = ((blocks == first) | (blocks >= own - 1)).unsqueeze(1)
        overlaps = block_overlaps(layout, pooled.shape[1], self.select_block, number, of_token)
        scores = (importance @ overlaps.unsqueeze(1).to(importance.dtype)).masked_fill(always, float("inf"))
        chosen = highest_blocks(scores, reachable, self.top_k_blocks).expand(*scores.shape)
        of_token = of_token[:, None, None].expand(*scores.shape[:3], -1)
        return chosen.gather(-1, of_token) & rows.visible_tokens(tokens, None).unsqueeze(1)

    def read(self, query: torch.Tensor, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Attention to the visible ones of kept tokens, (batch, time, n_heads, head_dim)."""
        keys, values = self.unpacked(tokens)
        group = self.n_heads // self.n_kv_heads
        if visible.shape[1] > 1:
            visible = visible.repeat_interleave(group, dim=1)
        mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, torch.finfo(query.dtype).min)
        dropout = self.attention_dropout if self.training else 0.0
        if self.softcap is not None:
            return eager_attention(self, query, keys, values, mask, self.scaling, dropout, self.softcap)[0]
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        attend = nn.functional.scaled_dot_product_attention
        return attend(query, keys, values, mask, dropout, scale=self.scaling).transpose(1, 2)
