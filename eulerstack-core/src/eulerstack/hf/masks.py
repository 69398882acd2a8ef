"""One mask for each distinct kind of layer, built once a forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from transformers.masking_utils import (
    create_causal_mask,
    create_sliding_window_causal_mask,
    find_packed_sequence_indices,
)

from eulerstack.hf.cache import GATED_LAYER_PREFIX, STATE_LAYER_TYPE, layer_dilation, sliding_layer_window
from eulerstack.hf.tables import ByName


class WindowedConfig:
    """A config in which `sliding_window` has another value."""

    def __init__(self, config: Any, sliding_window: int | None):
        self.config = config
        self.sliding_window = sliding_window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)


def create_masks(
    config: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_key_values: Any = None,
    position_ids: torch.Tensor | None = None,
    attention_bias: Callable[..., torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Masks by layer type.

    Shapes: inputs_embeds (batch, time, d_model); attention_mask (batch, past + time) of 0 and 1, or None.
    `attention_bias` (query indices, key indices) -> (n_heads, time, context) is added to the scores' mask.
    Attention layers get what the chosen attention implementation takes (None where it needs no mask); state layers and
    gated ones get (batch, time) of 0 and 1, or None when nothing is padding.
    Errors: ValueError for a mask of scores, or a cache without slots, where layers keep states
    """
    masks: dict[str, Any] = {}
    for layer_idx, layer_type in enumerate(config.layer_types):
        if layer_type in masks:
            continue
        if layer_type == STATE_LAYER_TYPE or layer_type.startswith(GATED_LAYER_PREFIX):
            if attention_mask is not None and attention_mask.ndim != 2:
                raise ValueError(
                    "layers that keep states, and gated ones, take no masks of scores: give attention_mask as "
                    "(batch, time)"
                )
            if layer_type in CACHE_CHECKS:
                CACHE_CHECKS[layer_type](config.layer_types, past_key_values)
            masks[layer_type] = state_mask(inputs_embeds, attention_mask)
        else:
            masks[layer_type] = attention_layer_mask(
                config,
                layer_idx,
                layer_type,
                inputs_embeds,
                attention_mask,
                past_key_values,
                position_ids,
                attention_bias,
            )
    return masks


def check_state_slots(layer_types: list[str], past_key_values: Any) -> None:
    """Raises a ValueError for a cache that was made without the model's config, so that it has no slots of ours."""
    if past_key_values is None:
        return
    layers = past_key_values.layers
    slots = [slot for slot, layer_type in enumerate(layer_types) if layer_type == STATE_LAYER_TYPE]
    # By what it can do, because models of several directories bring several copies of our classes.
    if any(slot >= len(layers) or not hasattr(layers[slot], "put_history") for slot in slots):
        raise ValueError(
            "layers of this model keep states, which need a cache of their own kind, as "
            "DynamicCache(config=model.config) makes it"
        )


CACHE_CHECKS: ByName = {
    "eulerstack_state": check_state_slots,
}


def state_mask(inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """The part of a padding mask that belongs to the present tokens, (batch, time)."""
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    return attention_mask[:, -inputs_embeds.shape[1] :]


def packed_sequences(
    position_ids: torch.Tensor | None, attention_mask: Any, past_key_values: Any
) -> torch.Tensor | None:
    """Which of several packed sequences each token belongs to, (batch, time); None when nothing is packed.

    As attention sees it: packing shows by given positions that restart, without a mask and without a cache.
    """
    if position_ids is None or attention_mask is not None or past_key_values is not None:
        return None
    return find_packed_sequence_indices(position_ids)


def every_nth_key(dilation: int) -> Callable[..., Any]:
    """A mask function of transformers: keys at a multiple of `dilation` tokens from the query."""

    def mask(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (q_idx - kv_idx) % dilation == 0

    return mask


def all_of(functions: list[Callable[..., Any]]) -> Callable[..., Any] | None:
    """A mask function of what all of them let through; None without any."""

    def mask(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        visible = functions[0](batch_idx, head_idx, q_idx, kv_idx)
        for function in functions[1:]:
            visible = visible & function(batch_idx, head_idx, q_idx, kv_idx)
        return visible

    return mask if functions else None


# What a window leaves out, by its mode.
GAPS: ByName = {
    "dilated": every_nth_key,
}


def attention_layer_mask(
    config: Any,
    layer_idx: int,
    layer_type: str,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_key_values: Any,
    position_ids: torch.Tensor | None,
    attention_bias: Callable[..., torch.Tensor] | None,
    also: tuple[Callable[..., Any], ...] = (),
    always: bool = False,
) -> Any:
    """The mask of attention layer `layer_idx`, with the position's bias added where there is one.

    `also` are mask functions of transformers which have to let a key through too; `always`: not None even where kernels
    know by themselves what a mask would say.
    """
    window = sliding_layer_window(layer_type, config.sliding_window)
    arguments = (inputs_embeds, attention_mask, past_key_values, position_ids)
    functions = list(also)
    skips = attention_bias is None and not always
    if window is None:
        mask = create_causal_mask(
            config, *arguments, layer_idx=layer_idx, allow_is_causal_skip=skips, and_mask_function=all_of(functions)
        )
    else:
        dilation = layer_dilation(layer_type)
        if dilation > 1:
            functions.append(GAPS["dilated"](dilation))
        mask = create_sliding_window_causal_mask(
            WindowedConfig(config, window),
            *arguments,
            layer_idx=layer_idx,
            allow_is_causal_skip=skips,
            and_mask_function=all_of(functions),
        )
    if attention_bias is not None and mask is not None:
        mask = biased_mask(mask, attention_bias, layer_idx, inputs_embeds, past_key_values)
    # A caller's mask of scores comes back as it is, and may show more than the window.
    made_here = attention_mask is None or (isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2)
    return note_window(mask) if window is not None and made_here else mask


def note_window(mask: Any) -> Any:
    """Notes on a tensor that it hides every key outside the layer's window."""
    if isinstance(mask, torch.Tensor) and not torch.compiler.is_compiling():
        mask._within_window = True
    return mask


def biased_mask(
    mask: torch.Tensor,
    attention_bias: Callable[..., torch.Tensor],
    layer_idx: int,
    inputs_embeds: torch.Tensor,
    past_key_values: Any,
) -> torch.Tensor:
    """A mask of scores with the position's bias on what it lets through, (batch, n_heads, time, context)."""
    offset, first = 0, 0
    if past_key_values is not None:
        _, offset = past_key_values.get_mask_sizes(inputs_embeds.shape[1], layer_idx)
        first = past_key_values.get_seq_length(layer_idx)
    device = inputs_embeds.device
    queries = torch.arange(inputs_embeds.shape[1], device=device) + first
    keys = torch.arange(mask.shape[-1], device=device) + offset
    dtype = inputs_embeds.dtype
    bias = attention_bias(queries, keys)[None].to(dtype)
    if mask.dtype == torch.bool:
        # The lowest finite number, because a row of -inf (padding) would become NaN.
        return bias.masked_fill(~mask, torch.finfo(dtype).min)
    return bias + mask
