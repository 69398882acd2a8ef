"""Multi-head, grouped-query and multi-query attention.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys and values, (batch, n_kv_heads, time, head_dim) each; with a window at most window - 1 tokens
Cost:   parameters 2·d·h·(n_heads + n_kv_heads) for head width h, plus biases and query/key norms and sinks
Source: Vaswani et al. 2017, arXiv:1706.03762; GQA: Ainslie et al. 2023, arXiv:2305.13245; windows: Beltagy et al. 2020,
        arXiv:2004.05150; query/key norm: Henry et al. 2020, arXiv:2010.04245; softcap: Gemma 2, arXiv:2408.00118
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.attention_base import AttentionBase
from eulerstack.hf.cache import layer_dilation, sliding_layer_window
from eulerstack.hf.tables import ByName
from eulerstack_mixers.modules.attention_calls import attend
from eulerstack_mixers.modules.attention_sinks import AttentionSinks
from eulerstack_mixers.modules.norms import RMSNorm
from eulerstack_mixers.modules.positions_rope import apply_rotary

# Parts of attention that a spec asks for by a word of their own.
OPTIONS: ByName = {
    "attention_sinks": AttentionSinks,
}


def checked_window(config: Any, params: dict[str, Any], layer_idx: int) -> int | None:
    """The span in tokens that a layer's type gives it. Errors: ValueError when the architecture says another one."""
    layer_type = config.layer_types[layer_idx]
    span, dilation = sliding_layer_window(layer_type, config.sliding_window), layer_dilation(layer_type)
    window, step = params["window"], params["window_dilation"] or 1
    expected = None if window is None else (window - 1) // step * step + 1
    if (span, dilation) != (expected, step):
        raise ValueError(
            f"layer {layer_idx}: the architecture's window is {expected} with a dilation of {step}, "
            f"but layer_types and sliding_window say {span} with {dilation}"
        )
    return span


class Attention(AttentionBase):
    """Softmax attention; which kernel computes it is the user's choice (`attn_implementation`)."""

    is_causal = True

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5 if params["scale"] is None else params["scale"]
        self.softcap = params["softcap"]
        self.attention_dropout = params["attn_drop"]
        self.interleaved = bool(params["rope"]) and params["rope"]["interleaved"]
        self.sliding_window = checked_window(config, params, layer_idx)

        query_width = config.num_attention_heads * self.head_dim
        key_width = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=params["qkv_bias"])
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=params["qkv_bias"])
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=params["qkv_bias"])
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=params["o_bias"])
        self.qk_norm = params["qk_norm"]
        # A query that is normalised has no small values to begin with.
        query = "query" if self.qk_norm == "none" else "hidden"
        self.parameter_roles = {"q_proj.weight": query, "o_proj.weight": "output"}
        if self.qk_norm != "none":
            norm = {"eps": config.architecture["model"]["norm_eps"], "zero_centered": False}
            per_head = self.qk_norm == "head"
            self.q_norm = RMSNorm(self.head_dim if per_head else query_width, norm)
            self.k_norm = RMSNorm(self.head_dim if per_head else key_width, norm)
        sinks = params["attention_sinks"]
        self.sinks = None if sinks is None else OPTIONS["attention_sinks"](config.num_attention_heads, sinks)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        heads = (*input_shape, -1, self.head_dim)
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        if self.qk_norm == "full":
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = query.view(heads), key.view(heads), value.view(heads).transpose(1, 2)
        if self.qk_norm == "head":
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        if position_embeddings is not None:
            query = apply_rotary(query, *position_embeddings, interleaved=self.interleaved)
            key = apply_rotary(key, *position_embeddings, interleaved=self.interleaved)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        if self.softcap is not None:
            kwargs["softcap"] = self.softcap
        if self.sinks is not None:
            kwargs["s_aux"] = self.sinks(query)
        attention_output, attention_weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        attention_output = attention_output.reshape(*input_shape, -1).contiguous()
        return self.o_proj(attention_output), attention_weights
