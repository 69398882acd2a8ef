"""Attention to a window of tokens and to compressed blocks of all of them (DeepSeek-V4's CSA and HCA).

One head of keys, which are the values too, serves all heads of queries. A block of m_block tokens becomes one such
key; it is seen once it is complete, at the rotary position of its first token. `hca` sees every complete block; `csa`,
whose blocks overlap, the top_k_blocks that an indexer scores highest. As values have been rotated with the keys, the
output is rotated back at the query's position, so that it depends on distances alone.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys of the last window − 1 tokens and of every complete block, (batch, tokens, head_dim); see
        block_compressor.py for the unfinished block
Cost:   see the declaration
Source: DeepSeek-AI 2026, DeepSeek-V4, section 2.3; the indexer: DeepSeek-V3.2, arXiv:2512.02556, eq. 1
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eulerstack.hf.attention_base import AttentionBase
from eulerstack.hf.tables import ByName
from eulerstack_mixers.modules.attention import OPTIONS
from eulerstack_mixers.modules.attention_calls import eager_attention
from eulerstack_mixers.modules.block_compressor import BlockCompressor, rotate_last
from eulerstack_mixers.modules.indexer_loss import indexer_divergence, weights_on_blocks
from eulerstack_mixers.modules.norms import RMSNorm
from eulerstack_mixers.modules.positions_rope import RotaryEmbedding
from eulerstack_mixers.modules.token_blocks import BlockLayout, TokenRows
from eulerstack_mixers.modules.window_chunks import WindowChunks


class GroupedProjection(nn.Module):
    """A matrix for each group of channels: (…, width) -> (…, groups · out_width)."""

    def __init__(self, width: int, groups: int, out_width: int):
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(groups * out_width, width // groups))
        self.parameter_roles = {"weight": "hidden"}

    def initialize(self, initializer_range: float) -> None:
        initialization.normal_(self.weight, mean=0.0, std=initializer_range)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        grouped = states.unflatten(-1, (self.groups, -1))
        weight = self.weight.unflatten(0, (self.groups, -1))
        return torch.einsum("...gi,goi->...go", grouped, weight).flatten(-2)


# Numbers of one product of the indexer's queries and keys.
INDEX_SCORES_AT_ONCE = 2**22


class LightningIndexer(nn.Module):
    """Scores of blocks: Σ_h w_h · ReLU(q_h · k) · width^-½ · heads^-½, with keys of its own for the same blocks."""

    def __init__(self, config: Any, params: dict[str, Any], query_source: int, interleaved: bool):
        super().__init__()
        words = params["indexer"]
        self.n_heads, self.width, self.interleaved = words["n_heads"], words["d_per_head"], interleaved
        self.dtype = getattr(torch, words["dtype"])
        self.compressor = BlockCompressor(config, params, self.width, True, interleaved, "index")
        self.q_proj = nn.Linear(query_source, self.n_heads * self.width, bias=False)
        self.weights_proj = nn.Linear(config.hidden_size, self.n_heads, bias=False)
        self.parameter_roles = {"weights_proj.weight": "router"}
        # The weight of what teaches it.
        self.kl_coef = words["kl_coef"]

    def divergence(
        self, scores: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, own: torch.Tensor | None
    ) -> torch.Tensor:
        """What its scores add to the loss where attention gives the blocks `weights`; all (batch, time, blocks)."""
        return self.kl_coef * indexer_divergence(scores, weights, chosen, own)

    def forward(
        self,
        hidden_states: torch.Tensor,
        query_source: torch.Tensor,
        layout: BlockLayout,
        rotation: tuple[torch.Tensor, torch.Tensor] | None,
        block_rotation: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Scores in at least float32, (batch, time, blocks); queries and keys are rounded to the indexer's dtype."""
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        kept = precise if self.dtype == torch.float32 else self.dtype
        keys = self.compressor(hidden_states, layout, block_rotation, kept)
        query = self.q_proj(query_source).unflatten(-1, (self.n_heads, self.width)).transpose(1, 2)
        query = rotate_last(query.to(precise), rotation, self.interleaved).to(kept)
        # A router may be kept in float32 beside lower-precision activations.
        weights = self.weights_proj(hidden_states.to(self.weights_proj.weight.dtype)).to(precise)
        scaling = (self.width * self.n_heads) ** -0.5
        # As many tokens at a time as keep the scores of all heads small.
        tokens = max(1, INDEX_SCORES_AT_ONCE // (self.n_heads * max(1, keys.shape[1])))
        parts = []
        with torch.autocast(hidden_states.device.type, enabled=False):
            shared = keys.to(precise).transpose(1, 2).unsqueeze(1)
            for some, shares in zip(query.split(tokens, dim=2), weights.split(tokens, dim=1), strict=True):
                # (batch, heads, some tokens, blocks)
                parts.append(torch.einsum("bhts,bth->bts", (some.to(precise) @ shared).relu(), shares * scaling))
        return torch.cat(parts, dim=1)


# Who chooses among a compression's blocks, by the indexer's `arch`.
INDEXERS: ByName = {
    "lightning": LightningIndexer,
}


def highest_blocks(scores: torch.Tensor, visible: torch.Tensor, number: int) -> torch.Tensor:
    """Of the visible blocks the `number` with the highest scores; of equal ones the earlier. (batch, time, blocks)"""
    if scores.shape[-1] <= number:
        return visible
    ranked = scores.masked_fill(~visible, float("-inf"))
    least = ranked.topk(number, dim=-1).values[..., -1:]
    higher, level = ranked > least, ranked == least
    # Equal scores are common, because a ReLU makes zeros; a cache must not change which of them count.
    room = number - higher.sum(dim=-1, keepdim=True)
    return (higher | (level & (level.cumsum(dim=-1, dtype=torch.int32) <= room))) & visible


class CompressedAttention(AttentionBase):
    """Softmax attention with shared keys and values, over a window and blocks."""

    is_causal = True
    parameter_roles = {"o_proj.weight": "output", "o_b_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.n_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.num_key_value_groups = self.n_heads
        self.scaling = self.head_dim**-0.5 if params["scale"] is None else params["scale"]
        self.softcap = params["softcap"]
        self.attention_dropout = params["attn_drop"]
        self.window = params["window"]
        self.q_latent_dim, self.eps = params["q_latent_dim"], config.architecture["model"]["norm_eps"]
        compression, rope = params["compression"], params["rope"]
        self.length, self.top_k_blocks = compression["m_block"], compression["top_k_blocks"]
        self.interleaved = bool(rope) and rope["interleaved"]
        # Blocks stand at positions of their own.
        self.rotary = RotaryEmbedding(config, {**rope, "head_dim": self.head_dim}) if rope else None

        width, bias, query_width = config.hidden_size, params["qkv_bias"], self.n_heads * self.head_dim
        norm = {"eps": self.eps, "zero_centered": False}
        if self.q_latent_dim is None:
            self.q_proj = nn.Linear(width, query_width, bias=bias)
        else:
            self.q_a_proj = nn.Linear(width, self.q_latent_dim, bias=bias)
            self.q_a_norm = RMSNorm(self.q_latent_dim, norm)
            self.q_b_proj = nn.Linear(self.q_latent_dim, query_width, bias=False)
        self.kv_proj = nn.Linear(width, self.head_dim, bias=bias)
        self.kv_norm = RMSNorm(self.head_dim, norm)
        overlaps = compression["type"] == "csa"
        # None where there is a window alone.
        self.compressor: Any = None
        if self.length is not None:
            self.compressor = BlockCompressor(config, compression, self.head_dim, overlaps, self.interleaved)
        self.indexer: Any = None
        if compression["indexer"] is not None:
            indexer = INDEXERS[compression["indexer"]["arch"]]
            self.indexer = indexer(config, compression, self.q_latent_dim or width, self.interleaved)
        # Between `begin` and `finish` which tokens count, and what teaches the indexer.
        self.kept: torch.Tensor | None = None
        self.loss: torch.Tensor | None = None
        if params["o_latent_dim"] is None:
            self.o_proj = nn.Linear(query_width, width, bias=params["o_bias"])
        else:
            groups, inner = params["o_groups"], params["o_latent_dim"]
            self.o_a_proj = GroupedProjection(query_width, groups, inner)
            self.o_b_proj = nn.Linear(groups * inner, width, bias=params["o_bias"])
        self.grouped_output = params["o_latent_dim"] is not None
        sinks = params["attention_sinks"]
        self.sinks = None if sinks is None else OPTIONS["attention_sinks"](self.n_heads, sinks)

    def begin(self, kept: Any, token_ids: Any = None, sequence_ids: Any = None) -> None:
        """A pass begins whose `finish` reports what teaches the indexer; `kept` (batch, time) is 0 at padding."""
        self.kept, self.loss = kept, None

    def finish(self) -> tuple[torch.Tensor | None, None]:
        """While training: what the indexer's scores add to the loss."""
        loss, self.loss, self.kept = self.loss, None, None
        return loss, None

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        rows = TokenRows(hidden_states, attention_mask, position_ids, sequence_ids, cache)
        hidden_states = rows.arranged(hidden_states)
        layout: Any = None
        rotation = block_rotation = None
        if self.compressor is not None:
            layout = BlockLayout(rows, self.length, self.length)
            rotation, block_rotation = layout.rotations(self.rotary, hidden_states)
        elif self.rotary is not None:
            rotation = self.rotary(hidden_states, rows.position_ids)

        source = hidden_states
        if self.q_latent_dim is None:
            query = self.q_proj(hidden_states)
        else:
            source = self.q_a_norm(self.q_a_proj(hidden_states))
            query = self.q_b_proj(source)
        query = query.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
        query = rotate_last(self.normalised(query), rotation, self.interleaved)
        key = self.kv_norm(self.kv_proj(hidden_states)).unsqueeze(1)
        key = rows.extended("window", rotate_last(key, rotation, self.interleaved).squeeze(1))
        rows.remember("window", key, self.window - 1)

        blocks: Any = None
        chosen: Any = None
        if self.compressor is not None:
            blocks = self.compressor(hidden_states, layout, block_rotation, hidden_states.dtype)
            chosen = layout.visible(blocks)
        if self.indexer is not None:
            # A choice has no gradient: nothing of the indexer's reaches what it reads.
            scores = self.indexer(hidden_states.detach(), source.detach(), layout, rotation, block_rotation)
            chosen = highest_blocks(scores, chosen.expand(*scores.shape[:2], -1), self.top_k_blocks)
        chunks = WindowChunks(rows, key, self.window)
        # Weights that were asked for are those of all keys at once.
        wants_weights = kwargs.get("output_attentions", getattr(self.config, "output_attentions", False))
        in_chunks = chunks.pays and not wants_weights
        if in_chunks:
            query, visible, key = chunks.queries(query), chunks.visible(chosen), chunks.keys(blocks)
        else:
            visible = rows.visible_tokens(key, self.window)
            if chosen is not None:
                batch = max(visible.shape[0], chosen.shape[0])
                visible = torch.cat((visible.expand(batch, -1, -1), chosen.expand(batch, -1, -1)), dim=-1)
                key = torch.cat((key, blocks), dim=1)
            visible = visible.unsqueeze(1)
        key = key.unsqueeze(1)
        rows.finish()

        mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, torch.finfo(query.dtype).min)
        if self.softcap is not None:
            kwargs["softcap"] = self.softcap
        if self.sinks is not None:
            kwargs["s_aux"] = self.sinks(query)
        if self.training and self.indexer is not None and self.indexer.kl_coef:
            weights = weights_on_blocks(query, key, visible, blocks.shape[1], {"scaling": self.scaling, **kwargs})
            if in_chunks:
                weights = chunks.restored(weights.unsqueeze(2)).squeeze(2)
            counted = None if self.kept is None else rows.arranged((self.kept != 0).long()) != 0
            self.loss = self.indexer.divergence(scores, chosen, weights, counted)
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        attention_output, attention_weights = attention_interface(
            self,
            query,
            key,
            key,
            mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        if in_chunks:
            attention_output, attention_weights = chunks.restored(attention_output), None
        if rotation is not None:
            backwards = (rotation[0], -rotation[1])
            turned = rotate_last(attention_output.transpose(1, 2), backwards, self.interleaved)
            attention_output = turned.transpose(1, 2)
        output = self.project_output(attention_output.flatten(2))
        if attention_weights is not None and rows.order is not None:
            # Of keys, each row's own come first.
            back = rows.order.argsort(dim=1)[:, None, :, None]
            attention_weights = attention_weights.gather(2, back.expand_as(attention_weights))
        return rows.restored(output), attention_weights

    def normalised(self, query: torch.Tensor) -> torch.Tensor:
        """Each head of queries divided by its root mean square; there is no weight, which the scores would absorb."""
        precise = torch.promote_types(query.dtype, torch.float32)
        return nn.functional.rms_norm(query.to(precise), (self.head_dim,), None, self.eps).to(query.dtype)

    def project_output(self, attention_output: torch.Tensor) -> torch.Tensor:
        """(batch, time, n_heads · head_dim) -> (batch, time, d_model)"""
        if self.grouped_output:
            return self.o_b_proj(self.o_a_proj(attention_output))
        return self.o_proj(attention_output)
