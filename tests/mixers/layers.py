"""One attention layer by itself: its module, its mask and its rotation, and the naive implementation beside it."""

from __future__ import annotations

from typing import Any

import torch

from eulerstack.hf.masks import create_masks
from eulerstack_mixers.reference.attention import attention
from eulerstack_mixers.reference.compressed_attention import compressed_attention
from eulerstack_mixers.reference.latent_attention import latent_attention
from eulerstack_mixers.reference.native_sparse_attention import native_sparse_attention


def run_layer(model: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """The first layer's mixer on (batch, time, d_model), as the model calls it without a cache."""
    base = model.model
    positions = torch.arange(hidden_states.shape[1])[None]
    masks = create_masks(base.config, hidden_states, None, None, positions, base.attention_bias)
    rope = base.rope_of_slot[0]
    rotation = None if rope is None else base.rotary_embs[rope](hidden_states, positions)
    mask = masks[base.layer_types[0]]
    output = base.layers[0].mixer(hidden_states, position_embeddings=rotation, attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output


def run_reference(model: Any, weights: dict[str, torch.Tensor], hidden_states: torch.Tensor) -> torch.Tensor:
    """The same from the naive implementation, one row at a time."""
    architecture = model.config.architecture
    sizes, params = architecture["model"], architecture["blocks"][0]["mixer"]["params"]
    alibi = architecture["position"]["type"] == "alibi"
    if params["window_mode"] == "nsa":
        counts = (sizes["n_heads"], sizes["n_kv_heads"], sizes["head_dim"])
        return torch.stack([native_sparse_attention(row, weights, params, *counts) for row in hidden_states])
    if params["compression"] is not None:
        widths = (sizes["n_heads"], sizes["head_dim"], sizes["norm_eps"])
        rows = [compressed_attention(row, weights, params, *widths) for row in hidden_states]
    elif params["latent_dim"] is None:
        heads = (sizes["n_heads"], sizes["n_kv_heads"], sizes["norm_eps"])
        rows = [attention(row, weights, params, *heads, alibi=alibi) for row in hidden_states]
    else:
        widths = (sizes["n_heads"], sizes["head_dim"])
        rows = [latent_attention(row, weights, params, *widths, alibi=alibi) for row in hidden_states]
    return torch.stack(rows)
