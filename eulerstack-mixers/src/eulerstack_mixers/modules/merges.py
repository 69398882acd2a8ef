"""Merges: one stream from several.

Shapes: n streams of (batch, time, d_model) -> (batch, time, d_model)
State:  cross_attn: keys and values of the stream that is attended to, (batch, n_kv_heads, time, head_dim) each
Cost:   concat n·d² parameters; gated n²·d; cross_attn those of attention and two norms; with `projection` d² for add
        and gated, the matrix after the heads for cross_attn
Source: cross_attn: Alayrac et al. 2022 (Flamingo), arXiv:2204.14198, without positions of its own, which the streams
        bring along; gates: a softmax over the streams, as over experts
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eulerstack.hf.attention_base import AttentionBase
from eulerstack.hf.initial_weights import uses_mup
from eulerstack.hf.matrices import matrix_of
from eulerstack_mixers.modules.attention_calls import eager_attention
from eulerstack_mixers.modules.norms import RMSNorm


class StreamMerge(nn.Module):
    """A merge with a matrix behind it, where the spec asks for one."""

    def __init__(self, config: Any, params: dict[str, Any], inputs: int, default: bool):
        super().__init__()
        self.projection: Any = None
        if params.get("projection", default):
            self.projection = nn.Linear(inputs * config.hidden_size, config.hidden_size, bias=False)

    def projected(self, merged: torch.Tensor) -> torch.Tensor:
        """What is merged, after the matrix."""
        return merged if self.projection is None else self.projection(merged)


class ConcatMerge(StreamMerge):
    """The streams side by side."""

    def __init__(self, config: Any, params: dict[str, Any], streams: list[str], slot: int | None = None):
        super().__init__(config, params, len(streams), True)

    def forward(self, outputs: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        return self.projected(torch.cat(outputs, dim=-1))


class AddMerge(StreamMerge):
    """The sum of the streams."""

    def __init__(self, config: Any, params: dict[str, Any], streams: list[str], slot: int | None = None):
        super().__init__(config, params, 1, False)

    def forward(self, outputs: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        return self.projected(torch.stack(outputs).sum(0))


class GatedMerge(StreamMerge):
    """A mean of the streams, weighted by a softmax of logits that each token has from all of them."""

    parameter_roles = {"gate.weight": "router"}

    def __init__(self, config: Any, params: dict[str, Any], streams: list[str], slot: int | None = None):
        super().__init__(config, params, 1, False)
        self.gate = nn.Linear(len(streams) * config.hidden_size, len(streams), bias=False)

    def forward(self, outputs: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        # At least float32, and that of the weights where these are kept in it.
        dtype = torch.promote_types(outputs[0].dtype, torch.float32)
        logits = nn.functional.linear(torch.cat(outputs, dim=-1).to(dtype), matrix_of(self.gate, dtype))
        weights = logits.softmax(-1).to(outputs[0].dtype)
        merged = (torch.stack(outputs, dim=-2) * weights.unsqueeze(-1)).sum(-2)
        return self.projected(merged)


class CrossAttention(AttentionBase):
    """Causal attention of one stream to another of the same tokens: each sees itself and the earlier ones there."""

    is_causal = True

    def __init__(self, config: Any, projection: bool, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        # As in attention: under µP queries and keys that have learned are correlated (`eulerstack.plugins.scaling`).
        self.scaling = 8.0 / self.head_dim if uses_mup(config.architecture) else self.head_dim**-0.5
        query_width, key_width = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        norm = {"eps": config.architecture["model"]["norm_eps"], "zero_centered": False}
        self.query_norm, self.context_norm = RMSNorm(config.hidden_size, norm), RMSNorm(config.hidden_size, norm)
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=False)
        self.o_proj: Any = nn.Linear(query_width, config.hidden_size, bias=False) if projection else None
        self.parameter_roles = {"q_proj.weight": "query", "o_proj.weight": "output"}

    def forward(
        self,
        hidden_states: torch.Tensor,
        context_states: torch.Tensor,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`context_states` (batch, time, d_model) are those that hidden states attend to."""
        input_shape = hidden_states.shape[:-1]
        heads = (*input_shape, -1, self.head_dim)
        context = self.context_norm(context_states)
        query = self.q_proj(self.query_norm(hidden_states)).view(heads).transpose(1, 2)
        key, value = (each(context).view(heads).transpose(1, 2) for each in (self.k_proj, self.v_proj))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, weights = attention_interface(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        output = output.reshape(*input_shape, -1).contiguous()
        return output if self.o_proj is None else self.o_proj(output), weights


class CrossAttentionMerge(nn.Module):
    """y = to + attention(to, from); a branch like those of layers, scaled and dropped as they are."""

    def __init__(self, config: Any, params: dict[str, Any], streams: list[str], slot: int | None = None):
        super().__init__()
        ends = [str(params.get(word)) for word in ("from", "to")]
        if len(streams) != 2 or sorted(streams) != sorted(ends):
            raise ValueError(f"cross_attn attends from one of two streams to the other: {streams}, not {ends}")
        self.source, self.target = (streams.index(name) for name in ends)
        architecture = config.architecture
        self.scale = architecture["model"]["residual_multiplier"]
        self.dropout = architecture["training_hints"]["dropout"]
        self.attention = CrossAttention(config, params.get("projection", True), 0 if slot is None else slot)

    def forward(self, outputs: list[torch.Tensor], position_embeddings: Any = None, **kwargs: Any) -> torch.Tensor:
        branch, _ = self.attention(outputs[self.target], outputs[self.source], **kwargs)
        if self.dropout > 0.0 and self.training:
            branch = nn.functional.dropout(branch, p=self.dropout)
        return outputs[self.target] + (branch if self.scale == 1.0 else branch * self.scale)
