"""The part of a decoder layer that lets some tokens pass it by, with the cache, the masks and the positions it needs.

A gated layer works on the sequence of the tokens that it processes, as if the others were not there: windows, gaps and
decays count those tokens. Rotary angles and distances in scores are those of the text.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache

from eulerstack.hf.cache import GATED_LAYER_PREFIX, STATE_LAYER_TYPE
from eulerstack.hf.depth_gate import DepthGate, at_places, chosen_places, like, share_of
from eulerstack.hf.masks import attention_layer_mask
from eulerstack.hf.slots import Slots

# What flash attention is told of packed sequences, which are others where only some tokens are left.
PACKING_WORDS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def same_sequence(sequence_ids: torch.Tensor) -> Callable[..., Any]:
    """A mask function of transformers: keys of the query's own sequence, by ids (batch, tokens)."""

    def mask(batch_idx: Any, head_idx: Any, q_idx: Any, kv_idx: Any) -> Any:
        return sequence_ids[batch_idx, q_idx] == sequence_ids[batch_idx, kv_idx]

    return mask


class StoredTokens:
    """Says how many tokens are cached, to those who make masks."""

    is_compileable = False

    def __init__(self, stored: int):
        self.stored = stored

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The place of the first query among the keys."""
        return self.stored

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of keys, and the place of the first."""
        return self.stored + query_length, 0


class DepthGating(DepthGate):
    """The gate of a layer whose mixers own the cache slots `slots`. The model sets `attention_bias`, the position's."""

    def __init__(self, config: Any, params: dict[str, Any], slots: Slots):
        super().__init__(config.hidden_size, params["capacity"], params["router"])
        self.config = config
        # Whether the layer is given one mask and one rotation for each of several mixers.
        self.holds = not isinstance(slots, int)
        self.slots = (slots,) if isinstance(slots, int) else slots
        self.coefficient = config.architecture["training_hints"]["router_aux_loss_coef"]
        self.attention_bias: Callable[..., torch.Tensor] | None = None

    def around(
        self,
        block: Callable[..., tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]],
        hidden_states: torch.Tensor,
        attention_mask: Any,
        position_embeddings: Any,
        past_key_values: Cache | None,
        position_ids: torch.Tensor,
        sequence_ids: torch.Tensor | None = None,
        token_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The stream (batch, time, d_model) after `block` where tokens were chosen; what is added to the loss; the load
        of the block's experts.

        `block` is the layer without its gate. `attention_mask` (batch, time) is 0 at padding; of several slots it has,
        like `position_embeddings`, one entry each. No token chosen: the block is not computed, unless it trains.
        """
        batch, time = hidden_states.shape[:2]
        if self.holds:
            attention_mask = attention_mask[0]
        else:
            position_embeddings = (position_embeddings,)
        kept = None if attention_mask is None else attention_mask != 0
        choice = self.choose(hidden_states, kept, sequence_ids)
        layers = self.cache_layers(past_key_values)
        count = self.count(choice.chosen, sequence_ids)
        router_loss = None if choice.loss is None else self.coefficient * choice.loss
        if count == 0:
            for layer in layers:
                layer.note_seen(time)
            return hidden_states, router_loss, None
        # What follows upon a cache begins where the cache ends.
        places, valid = chosen_places(choice.chosen, count, at_end=not layers)
        states = at_places(hidden_states, places)
        # Where no row has fewer tokens than another, kernels need not be told which are there.
        whole = not layers if self.knows_count(kept, sequence_ids) else batch == 1 and not self.training
        positions = position_ids.expand(batch, -1).gather(1, places)
        sequences = None if sequence_ids is None else sequence_ids.expand(batch, -1).gather(1, places)
        owners: list[Any] = layers if layers else [None] * len(self.slots)
        masks = tuple(
            self.mask_of_slot(slot, layer, states, valid, whole, positions, sequences)
            for slot, layer in zip(self.slots, owners, strict=True)
        )
        rotations = tuple(
            None if each is None else tuple(at_places(table, places) for table in each) for each in position_embeddings
        )
        output, block_loss, load = block(
            states,
            attention_mask=masks if self.holds else masks[0],
            position_embeddings=rotations if self.holds else rotations[0],
            past_key_values=past_key_values,
            kept_tokens=None if whole else valid,
            position_ids=self.positions_for_mixers(positions, sequences),
            sequence_ids=sequences,
            token_ids=None if token_ids is None else token_ids.gather(1, places),
            **{word: value for word, value in kwargs.items() if word not in PACKING_WORDS},
        )
        for layer in layers:
            layer.settle()
            layer.note_seen(time)
        weights = choice.weights.gather(1, places)
        branch = (output - states).masked_fill(~like(valid, states), 0.0)
        losses = [loss for loss in (router_loss, block_loss) if loss is not None]
        return self.add(hidden_states, branch, weights, places), sum(losses) if losses else None, load

    def cache_layers(self, past_key_values: Cache | None) -> list[Any]:
        """The layer's cache slots, of `eulerstack.hf.gated_cache`.

        Errors: ValueError for a cache that was made without the model's config.
        """
        if past_key_values is None:
            return []
        layers = [past_key_values.layers[slot] for slot in self.slots if slot < len(past_key_values.layers)]
        # By what it can do, because models of several directories bring several copies of these classes.
        own = [hasattr(layer, "note_seen") for layer in layers]
        if len(own) < len(self.slots) or not all(own):
            raise ValueError(
                "a layer with depth_gating needs a cache of its own kind, as DynamicCache(config=model.config) makes it"
            )
        return layers

    def count(self, chosen: torch.Tensor, sequence_ids: torch.Tensor | None) -> int:
        """Tokens of the row that has chosen most; where that can be known from the shape, without looking."""
        time = chosen.shape[1]
        if self.training and self.kind == "top_k" and sequence_ids is None:
            return share_of(time, self.capacity)
        # A layer that trains takes part in every pass, as distributed training expects.
        return max(int(chosen.sum(1).max()), 1 if self.training else 0)

    def knows_count(self, kept: torch.Tensor | None, sequence_ids: torch.Tensor | None) -> bool:
        """Whether every row is sure to choose equally many tokens."""
        return self.training and self.kind == "top_k" and kept is None and sequence_ids is None

    def mask_of_slot(
        self,
        slot: int,
        layer: Any,
        states: torch.Tensor,
        valid: torch.Tensor,
        whole: bool,
        positions: torch.Tensor,
        sequences: torch.Tensor | None,
    ) -> Any:
        """What the slot's mixer is given as its mask, for states (batch, count, d_model), `valid` (batch, count)."""
        attention_bias = self.attention_bias
        biased = attention_bias is not None
        filled = valid if layer is None else layer.begin(valid, positions if biased else None)
        layer_type = self.config.layer_types[slot].removeprefix(GATED_LAYER_PREFIX)
        if layer_type == STATE_LAYER_TYPE:
            return None if whole else valid
        stored = filled.shape[1] - valid.shape[1]
        mask = attention_layer_mask(
            self.config,
            slot,
            layer_type,
            states,
            attention_mask=None if whole else filled,
            past_key_values=StoredTokens(stored) if stored else None,
            position_ids=None,
            attention_bias=None,
            also=() if sequences is None else (same_sequence(sequences),),
            always=biased,
        )
        if attention_bias is None:
            return mask
        keys = positions if layer is None else layer.positions
        bias = torch.stack([attention_bias(*row) for row in zip(positions, keys, strict=True)]).to(states.dtype)
        if mask.dtype == torch.bool:
            return bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
        return bias + mask

    def positions_for_mixers(self, positions: torch.Tensor, sequences: torch.Tensor | None) -> torch.Tensor:
        """Positions in the text for mixers with states. Attention has its rotary tables, and flash kernels take gaps
        between positions for borders of sequences: it is given the places among the processed tokens.

        Errors: ValueError where a layer has mixers of both kinds under flash attention.
        """
        states = [self.config.layer_types[slot] == GATED_LAYER_PREFIX + STATE_LAYER_TYPE for slot in self.slots]
        if any(states):
            if not all(states) and "flash" in self.config._attn_implementation:
                raise ValueError("a gated layer with attention and a state can't use flash attention: choose sdpa")
            return positions
        places = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
        if sequences is None:
            return places
        begins = torch.diff(sequences, dim=1, prepend=sequences[:, :1] - 1) != 0
        return places - torch.where(begins, places, 0).cummax(1).values
