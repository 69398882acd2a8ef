"""Cache layers of gated layers: they hold what the processed tokens left, and nothing of the tokens that passed by.

Rows of a batch choose different tokens. Keys and values of each row therefore stand at its end, as if the row were
padded on the left, and there are as many as the row with most of them has.

A gated layer announces the tokens of a pass by `begin`, and ends the pass by `settle`; between the two its mixer uses
the cache layer like any other. `note_seen` counts the tokens that went by, processed or not.
"""

from typing import Any

import torch
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING, STATIC_LAYER_TYPE_MAPPING, DynamicLayer

from eulerstack.hf.cache import GATED_LAYER_PREFIX, STATE_LAYER_TYPE, StateLayer, sliding_layer_window


class GatedKeysLayer(DynamicLayer):
    """Keys and values (batch, heads, stored, width); with a `window` those of the last window - 1 processed tokens.

    `positions` (batch, stored) are kept where scores depend on them.
    """

    is_croppable = False

    def __init__(self, window: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.keys: Any = None
        self.values: Any = None
        self.window = window
        # Processed tokens that are stored, of each row.
        self.counts: torch.Tensor | None = None
        self.positions: torch.Tensor | None = None
        self.announced: torch.Tensor | None = None
        self.seen_tokens = 0

    @property
    def stored(self) -> int:
        """Places for tokens of one row, filled or not."""
        return self.keys.shape[-2] if self.is_initialized and self.keys.ndim == 4 else 0

    def begin(self, valid: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Announces tokens, true in `valid` (batch, new); which places hold tokens from then on, (batch, stored + new).

        Tokens of a row come before its places that hold none, so that they follow upon those stored. `positions`
        (batch, new) are those of the tokens, where scores depend on them.
        """
        if self.counts is None:
            self.counts = valid.new_zeros(valid.shape[0], dtype=torch.long)
        places = torch.arange(self.stored, device=valid.device)
        filled = places >= self.stored - self.counts.to(valid.device).unsqueeze(1)
        if positions is not None:
            positions = positions.to(torch.int32)
            self.positions = positions if self.positions is None else torch.cat((self.positions, positions), dim=1)
        self.announced = torch.cat((filled, valid), dim=1)
        return self.announced

    def settle(self) -> None:
        """Moves the tokens of each row to its end, and forgets what lies before the window."""
        announced, self.announced = self.announced, None
        if announced is None or self.stored != announced.shape[1]:
            return
        counts = announced.sum(1)
        room = int(counts.max())
        if self.window is not None:
            room = min(room, self.window - 1)
        self.counts = counts.clamp(max=room)
        if room == announced.shape[1] and bool(announced.all()):
            return
        order = announced.to(torch.int8).argsort(dim=1, stable=True)[:, announced.shape[1] - room :]
        self.keys, self.values = self._taken(self.keys, order), self._taken(self.values, order)
        if self.positions is not None:
            self.positions = self.positions.gather(1, order)

    @staticmethod
    def _taken(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """`states` (batch, heads, stored, width) at places (batch, count)."""
        return states.gather(2, places[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))

    def note_seen(self, num_tokens: int) -> None:
        """Counts tokens of the text."""
        self.seen_tokens += num_tokens

    def get_seq_length(self) -> int:
        return self.seen_tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen_tokens + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        raise RuntimeError(
            "a gated layer doesn't know which of the last tokens it processed, so this model can't be used for "
            "assisted decoding"
        )

    def reset(self) -> None:
        super().reset()
        self.counts = self.positions = self.announced = None
        self.seen_tokens = 0

    def _replace(self, function: Any) -> None:
        if self.stored:
            self.keys, self.values = function(self.keys), function(self.values)
        self.counts = None if self.counts is None else function(self.counts)
        self.positions = None if self.positions is None else function(self.positions)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._replace(lambda each: each.index_select(0, beam_idx.to(each.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._replace(lambda each: each.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._replace(lambda each: each[indices])


class GatedStateLayer(StateLayer):
    """States that the tokens which pass by don't touch."""

    _layer_type = GATED_LAYER_PREFIX + STATE_LAYER_TYPE
    is_compileable = False

    def __init__(self, **kwargs: Any):
        super().__init__()
        self.counts: torch.Tensor | None = None
        self.longest = 0
        self.number_seen = 0

    def begin(self, valid: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Announces tokens, true in `valid` (batch, new), as which they come back; `positions` are not kept."""
        added = valid.sum(1)
        self.counts = added if self.counts is None else self.counts.to(added.device) + added
        self.longest = int(self.counts.max())
        return valid

    def settle(self) -> None:
        """Nothing is left to do: padding leaves no trace in a state."""

    def put_history(self, name: str, history: torch.Tensor, limit: int) -> None:
        # Rows end together, and before the longest of them there is nothing. A history that is full as it is, like one
        # of blocks, counts other things than tokens.
        full = history.shape[1] == limit
        super().put_history(name, history, limit if full else min(limit, self.longest))

    def advance(self, num_tokens: int) -> None:
        self.has_previous_state[0] = True

    def note_seen(self, num_tokens: int) -> None:
        """Counts tokens of the text."""
        self.number_seen += num_tokens

    def get_seq_length(self) -> int:
        return self.number_seen

    def reset(self) -> None:
        super().reset()
        self.counts = None
        self.longest = self.number_seen = 0

    def _replace(self, function: Any) -> None:
        super()._replace(function)
        self.counts = None if self.counts is None else function(self.counts)


def register_gated_layer(layer_type: str) -> None:
    """Teaches transformers' caches a gated layer's type: `eulerstack_gated_` before that of its mixer's cache.

    Errors: ValueError from a static cache, whose shapes can't follow from what tokens choose.
    """
    if not layer_type.startswith(GATED_LAYER_PREFIX):
        return
    if layer_type == GATED_LAYER_PREFIX + STATE_LAYER_TYPE:
        # By name, because an export holds what is named.
        DYNAMIC_LAYER_TYPE_MAPPING[layer_type] = GatedStateLayer
    else:
        window = sliding_layer_window(layer_type, None)
        DYNAMIC_LAYER_TYPE_MAPPING[layer_type] = lambda **kwargs: GatedKeysLayer(window=window)
    STATIC_LAYER_TYPE_MAPPING[layer_type] = refuse_static_cache


def refuse_static_cache(**kwargs: Any) -> Any:
    """Raises: a static cache has no place for a gated layer."""
    raise ValueError(
        "layers with depth_gating keep what the tokens that they choose leave, which has no fixed size: "
        "use the default cache instead of a static one"
    )
