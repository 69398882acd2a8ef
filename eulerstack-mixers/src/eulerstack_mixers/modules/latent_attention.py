"""Multi-head latent attention (MLA): keys and values of all heads are made from one narrow latent, which is cached.

A token keeps its normalised latent c and one rotary key r for all heads. Head h sees the key [K_h c ; r] and the value
V_h c. Decoding may move the two matrices over to the query and to the output, where they meet one token and not all of
the context: q·K_h c = (K_hᵀ q)·c, and Σ p V_h c = V_h Σ p c. The function is the same, and so are the parameters.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  latents (batch, 1, time, latent_dim) as keys, rotary keys (batch, 1, time, rope_head_dim) as values of the stock
        cache layer; with a window at most window - 1 tokens
Cost:   see the declaration
Source: DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, eq. 9–19 and 37–47; DeepSeek-V3, arXiv:2412.19437
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.attention_base import AttentionBase
from eulerstack.hf.matrices import matrix_of
from eulerstack_mixers.modules.attention import OPTIONS, checked_window
from eulerstack_mixers.modules.attention_calls import attend
from eulerstack_mixers.modules.norms import RMSNorm
from eulerstack_mixers.modules.positions_rope import apply_rotary


class LatentAttention(AttentionBase):
    """Softmax attention through a latent. `config.head_dim` is the width of a head without its rotary part."""

    is_causal = True
    parameter_roles = {"q_proj.weight": "query", "q_b_proj.weight": "query", "o_proj.weight": "output"}
    # Every head has keys and values of its own, or, in absorbed form, all heads are one.
    num_key_value_groups = 1

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.n_heads, self.nope_dim = config.num_attention_heads, config.head_dim
        self.rope_dim, self.value_dim = params["rope_head_dim"], params["v_head_dim"]
        self.latent_dim, self.q_latent_dim = params["latent_dim"], params["q_latent_dim"]
        self.scaling = params["scale"]
        self.softcap = params["softcap"]
        self.attention_dropout = params["attn_drop"]
        self.interleaved = bool(params["rope"]) and params["rope"]["interleaved"]
        self.sliding_window = checked_window(config, params, layer_idx)

        width, bias = config.hidden_size, params["qkv_bias"]
        query_width = self.n_heads * (self.nope_dim + self.rope_dim)
        norm = {"eps": params["latent_norm_eps"], "zero_centered": False}
        if self.q_latent_dim is None:
            self.q_proj = nn.Linear(width, query_width, bias=False)
        else:
            self.q_a_proj = nn.Linear(width, self.q_latent_dim, bias=bias)
            self.q_a_norm = RMSNorm(self.q_latent_dim, norm)
            self.q_b_proj = nn.Linear(self.q_latent_dim, query_width, bias=False)
        self.kv_a_proj = nn.Linear(width, self.latent_dim + self.rope_dim, bias=bias)
        self.kv_a_norm = RMSNorm(self.latent_dim, norm)
        self.kv_b_proj = nn.Linear(self.latent_dim, self.n_heads * (self.nope_dim + self.value_dim), bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.value_dim, width, bias=params["o_bias"])
        sinks = params["attention_sinks"]
        self.sinks = None if sinks is None else OPTIONS["attention_sinks"](self.n_heads, sinks)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, time = hidden_states.shape[:2]
        if self.q_latent_dim is None:
            query = self.q_proj(hidden_states)
        else:
            query = self.q_b_proj(self.q_a_norm(self.q_a_proj(hidden_states)))
        query = query.view(batch, time, self.n_heads, -1).transpose(1, 2)
        query_nope, query_rope = query.split((self.nope_dim, self.rope_dim), dim=-1)
        latent, key_rope = self.kv_a_proj(hidden_states).split((self.latent_dim, self.rope_dim), dim=-1)
        # One head for the cache: (batch, 1, time, width).
        latent, key_rope = self.kv_a_norm(latent).unsqueeze(1), key_rope.unsqueeze(1)
        if position_embeddings is not None:
            query_rope = apply_rotary(query_rope, *position_embeddings, interleaved=self.interleaved)
            key_rope = apply_rotary(key_rope, *position_embeddings, interleaved=self.interleaved)
        cached = past_key_values is not None
        if cached:
            latent, key_rope = past_key_values.update(latent, key_rope, self.layer_idx)

        sinks = None if self.sinks is None else self.sinks(hidden_states)
        absorbed = cached and self.absorbs(time, latent.shape[-2], attention_mask)
        if absorbed:
            query, key, value = self.absorb(query_nope, query_rope, latent, key_rope)
            attention_mask = self.mask_of_absorbed(attention_mask)
            # Without a mask a single token sees everything; its heads must not be taken for successive tokens.
            kwargs["is_causal"] = False
            sinks = None if sinks is None else sinks.repeat_interleave(time).view(1, 1, -1, 1)
        else:
            query = torch.cat((query_nope, query_rope), dim=-1)
            key, value = self.expand(latent, key_rope)
        if self.softcap is not None:
            kwargs["softcap"] = self.softcap
        if sinks is not None:
            kwargs["s_aux"] = sinks

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
        if absorbed:
            attention_output = self.values_of_absorbed(attention_output)
            if attention_weights is not None:
                attention_weights = attention_weights.view(batch, self.n_heads, time, -1)
        attention_output = attention_output.reshape(batch, time, -1).contiguous()
        return self.o_proj(attention_output), attention_weights

    def expand(self, latent: torch.Tensor, key_rope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys (batch, n_heads, context, nope + rope) and values (batch, n_heads, context, value) of every head."""
        batch, _, context, _ = latent.shape
        expanded = self.kv_b_proj(latent).view(batch, context, self.n_heads, -1).transpose(1, 2)
        key_nope, value = expanded.split((self.nope_dim, self.value_dim), dim=-1)
        return torch.cat((key_nope, key_rope.expand(-1, self.n_heads, -1, -1)), dim=-1), value

    def absorbs(self, time: int, context: int, attention_mask: Any) -> bool:
        """Whether attending to the latents themselves takes fewer multiplications than expanding them.

        Kernels that take no heads this wide, or masks of their own kind, always get expanded keys.
        """
        if self.config._attn_implementation not in ("eager", "sdpa") or (attention_mask is None and time > 1):
            return False
        both = self.latent_dim * (self.nope_dim + self.value_dim)
        expanding = context * both + time * context * (self.nope_dim + self.rope_dim + self.value_dim)
        return time * both + time * context * (2 * self.latent_dim + self.rope_dim) < expanding

    def absorb(
        self, query_nope: torch.Tensor, query_rope: torch.Tensor, latent: torch.Tensor, key_rope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (batch, 1, n_heads · time, latent + rope), and the latents as keys and values that heads share.

        Heads are laid along the time axis, so that no kernel copies keys for them.
        """
        up = matrix_of(self.kv_b_proj, query_nope.dtype).view(self.n_heads, -1, self.latent_dim)[:, : self.nope_dim]
        query = torch.cat((torch.matmul(query_nope, up), query_rope), dim=-1)
        return query.flatten(1, 2).unsqueeze(1), torch.cat((latent, key_rope), dim=-1), latent

    def mask_of_absorbed(self, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """A mask (batch, 1 or n_heads, time, context) for heads laid along the time axis."""
        if attention_mask is None:
            return None
        batch, _, time, context = attention_mask.shape
        return attention_mask.expand(-1, self.n_heads, -1, -1).reshape(batch, 1, self.n_heads * time, context)

    def values_of_absorbed(self, attention_output: torch.Tensor) -> torch.Tensor:
        """Means of latents (batch, n_heads · time, 1, latent) -> means of values (batch, time, n_heads, value)."""
        batch = attention_output.shape[0]
        means = attention_output.view(batch, self.n_heads, -1, self.latent_dim)
        up = matrix_of(self.kv_b_proj, means.dtype).view(self.n_heads, -1, self.latent_dim)[:, self.nope_dim :]
        return torch.matmul(means, up.transpose(1, 2)).transpose(1, 2)
