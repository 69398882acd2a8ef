"""Cache layers: what a mixer keeps between forward calls.

Attention uses the stock layers of transformers; what another mixer needs is defined here. Layer types are global names
in transformers, so ours begin with `eulerstack_`.
"""

from typing import Any

import torch
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    STATIC_LAYER_TYPE_MAPPING,
    CacheLayerMixin,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    StaticSlidingWindowLayer,
)

from eulerstack.hf.tables import ByName

STATE_LAYER_TYPE = "eulerstack_state"
SLIDING_LAYER_PREFIX = "eulerstack_sliding_"
DILATED_LAYER_PREFIX = "eulerstack_dilated_"
# Before the type of a layer's cache where only some tokens are processed.
GATED_LAYER_PREFIX = "eulerstack_gated_"


class StateLayer(LinearAttentionLayer, CacheLayerMixin):
    """Named states, and the number of tokens they have seen.

    Shapes: any, as long as dimension 0 is the batch. A state is of fixed size (`put`), or holds something of every
    token (`put_history`).
    """

    _layer_type = STATE_LAYER_TYPE
    is_compileable = True
    is_croppable = False
    is_sliding = False

    def __init__(self, max_cache_len: int | None = None, **kwargs: Any):
        CacheLayerMixin.__init__(self)
        # The tokens that a static cache has room for; None in one that grows.
        self.max_cache_len = max_cache_len
        LinearAttentionLayer.__init__(self, number_of_states=1)
        self.slots: dict[str, torch.Tensor] = {}
        # A tensor, because a Python integer would recompile the model at every step.
        self.seen_tokens: torch.Tensor | None = None
        # The same as an integer, counted by mixers whose states grow: there every step has other shapes anyway.
        self.num_tokens = 0

    def get(self, name: str) -> torch.Tensor | None:
        """The state called `name`, or None before the first token."""
        return self.slots[name] if self.has_previous_state[0] else None

    def put(self, name: str, state: torch.Tensor) -> None:
        """Stores `state`; in place when possible, so that its address stays the same for compiled decoding."""
        current = self.slots.get(name)
        if current is not None and current.shape == state.shape and not state.requires_grad:
            current.copy_(state)
            return
        # A state that carries a gradient is kept as it is; otherwise the cache owns a copy.
        self.slots[name] = state if state.requires_grad else state.clone()
        if not torch.compiler.is_compiling() and not state.requires_grad:
            torch._dynamo.mark_static_address(self.slots[name])

    def put_history(self, name: str, history: torch.Tensor, limit: int) -> None:
        """Stores the last `limit` tokens of `history`, (batch, tokens, …), the newest last.

        In a static cache a history has its full length from the start, so that its address stays: zeros stand for the
        tokens that are still to come. A new tensor is kept as it is, not copied.

        Errors: RuntimeError when a static cache has no room for a token that must not be forgotten yet.
        """
        if self.max_cache_len is None:
            self.slots[name] = history[:, max(0, history.shape[1] - limit) :]
            return
        room = min(limit, self.max_cache_len)
        surplus = history.shape[1] - room
        if surplus > 0 and room < limit:
            # Dropping zeros loses nothing: they are padding, or the free room itself.
            torch._assert_async((history[:, :surplus] == 0).all(), "the static cache has no room for another token")
        kept = history[:, max(0, surplus) :]
        if surplus < 0:
            kept = torch.cat((kept.new_zeros(kept.shape[0], -surplus, *kept.shape[2:]), kept), dim=1)
        self.put(name, kept)

    def advance(self, num_tokens: int) -> None:
        """Counts `num_tokens` more tokens; called once at the end of a mixer's forward."""
        self.has_previous_state[0] = True
        if self.seen_tokens is None:
            device = next(iter(self.slots.values())).device
            self.seen_tokens = torch.zeros(1, dtype=torch.long, device=device)
            if not torch.compiler.is_compiling():
                torch._dynamo.mark_static_address(self.seen_tokens)
        self.seen_tokens.add_(num_tokens)

    @property
    def state_bytes(self) -> int:
        """Bytes held at present, for the whole batch."""
        return sum(state.numel() * state.element_size() for state in self.slots.values())

    def get_seq_length(self) -> Any:
        return 0 if self.seen_tokens is None else self.seen_tokens

    def get_mask_sizes(self, query_length: int) -> tuple[Any, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a StateLayer is filled by `put`")

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a StateLayer holds states, not keys and values: use `get`, `put` and `advance`")

    def crop(self, tokens_to_remove: int) -> None:
        raise RuntimeError("a recurrent state can't be rolled back, so this model can't be used for assisted decoding")

    def reset(self) -> None:
        for state in self.slots.values():
            state.zero_()
        self.has_previous_state[0] = False
        self.num_tokens = 0
        if self.seen_tokens is not None:
            self.seen_tokens.zero_()

    def _replace(self, function: Any) -> None:
        self.slots = {name: function(state) for name, state in self.slots.items()}

    def offload(self) -> None:
        self._replace(lambda state: state.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        if self.seen_tokens is not None:
            device = self.seen_tokens.device
            self._replace(lambda state: state.to(device, non_blocking=True))

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._replace(lambda state: state.index_select(0, beam_idx.to(state.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._replace(lambda state: state.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._replace(lambda state: state[indices])


# Layers of our own, by the layer type that config.json gives.
OWN_LAYERS: ByName = {
    STATE_LAYER_TYPE: StateLayer,
}


def sliding_layer_window(layer_type: str, sliding_window: int | None) -> int | None:
    """The window in tokens (the current one included) of a layer type; None when it sees everything.

    transformers knows one window a model, `sliding_window`; a layer with another one has the type
    `eulerstack_sliding_<window>`, a dilated one `eulerstack_dilated_<window>_<dilation>`.
    """
    layer_type = layer_type.removeprefix(GATED_LAYER_PREFIX)
    if layer_type == "sliding_attention":
        return sliding_window
    if layer_type.startswith(SLIDING_LAYER_PREFIX):
        return int(layer_type.removeprefix(SLIDING_LAYER_PREFIX))
    if layer_type.startswith(DILATED_LAYER_PREFIX):
        return int(layer_type.removeprefix(DILATED_LAYER_PREFIX).partition("_")[0])
    return None


def layer_dilation(layer_type: str) -> int:
    """The distance in tokens between the keys that a layer of this type sees; 1 when it sees all of its window."""
    if layer_type.removeprefix(GATED_LAYER_PREFIX).startswith(DILATED_LAYER_PREFIX):
        return int(layer_type.rpartition("_")[2])
    return 1


def register_layer(layer_type: str) -> None:
    """Teaches transformers' caches our layer types; other types are left alone."""
    if layer_type in OWN_LAYERS:
        # The class made itself known to growing caches when it was defined.
        STATIC_LAYER_TYPE_MAPPING[layer_type] = OWN_LAYERS[layer_type]
    if not layer_type.startswith((SLIDING_LAYER_PREFIX, DILATED_LAYER_PREFIX)):
        return
    window = sliding_layer_window(layer_type, None)
    DYNAMIC_LAYER_TYPE_MAPPING[layer_type] = lambda **kwargs: DynamicSlidingWindowLayer(
        **{**kwargs, "sliding_window": window}
    )
    STATIC_LAYER_TYPE_MAPPING[layer_type] = lambda **kwargs: StaticSlidingWindowLayer(
        **{**kwargs, "sliding_window": window}
    )
