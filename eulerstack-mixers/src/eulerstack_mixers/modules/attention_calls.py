"""Calls of the attention function that the user chose, in the shapes in which it is fast.

sdpa alone is helped: under a window it computes every score and throws most of them away, and on a CPU it has a fused
kernel only for queries, keys and values of one width.

Shapes: query (batch, n_heads, time, width); key (batch, n_kv_heads, context, width), value (…, value_width) ->
        output (batch, time, n_heads, value_width) and the weights (batch, n_heads, time, context), or None
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Fewer queries make smaller matrix products than a processor is good at.
LEAST_QUERIES = 128


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out.

    Shapes: query (batch, n_heads, time, head_dim); key, value (batch, n_kv_heads, context, head_dim); `s_aux`, the
    logit of each head's sink, (n_heads) or one that expands to (batch, n_heads, time, 1) ->
    output (batch, time, n_heads, head_dim) and weights (batch, n_heads, time, context).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores + attention_mask
    precise = torch.promote_types(scores.dtype, torch.float32)
    if s_aux is not None:
        sinks = s_aux.view(1, -1, 1, 1) if s_aux.ndim == 1 else s_aux
        scores = torch.cat((scores.to(precise), sinks.to(precise).expand(*scores.shape[:-1], 1)), dim=-1)
    weights = nn.functional.softmax(scores, dim=-1, dtype=precise).to(query.dtype)
    if s_aux is not None:
        weights = weights[..., :-1]
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention by the implementation that `module.config` names."""
    implementation = module.config._attn_implementation
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
    kwargs["sliding_window"] = sliding_window
    if implementation != "sdpa" or kwargs.get("cache") is not None:
        return interface(module, query, key, value, attention_mask, **kwargs)
    width, value_width = query.shape[-1], value.shape[-1]
    if query.device.type == "cpu" and query.shape[2] > 1:
        query, key, value = (widened(states, max(width, value_width)) for states in (query, key, value))
    step = queries_at_once(query, key, attention_mask, sliding_window)
    if step is None:
        output, weights = interface(module, query, key, value, attention_mask, **kwargs)
        return output[..., :value_width], weights
    outputs = []
    before = key.shape[2] - query.shape[2]
    for start in range(0, query.shape[2], step):
        stop = min(start + step, query.shape[2])
        seen = slice(max(before + start - sliding_window + 1, 0), before + stop)
        states = (query[:, :, start:stop], key[:, :, seen], value[:, :, seen])
        outputs.append(interface(module, *states, attention_mask[:, :, start:stop, seen], **kwargs)[0])
    return torch.cat(outputs, dim=1)[..., :value_width], None


def widened(states: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros behind the last channel, which add nothing to a product."""
    return states if states.shape[-1] == width else nn.functional.pad(states, (0, width - states.shape[-1]))


def queries_at_once(query: torch.Tensor, key: torch.Tensor, attention_mask: Any, window: int | None) -> int | None:
    """How many queries at a time meet only the keys of their windows; None where all should meet all.

    All do where the mask is the caller's own: it decides alone what is seen, as in other implementations.
    """
    if window is None or torch.compiler.is_compiling() or not getattr(attention_mask, "_within_window", False):
        return None
    step = max(window, LEAST_QUERIES)
    # The mask has a column for every key, and the last queries are those of the last keys.
    fits = attention_mask.shape[-1] == key.shape[2] >= query.shape[2]
    return step if fits and query.shape[2] > 2 * step else None
