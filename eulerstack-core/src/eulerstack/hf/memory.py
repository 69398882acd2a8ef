"""Memories beside mixers: what they remember, for how long, and how a model's memories are stepped and kept.

A memory's state is a few tensors of one row a sequence. Where a sequence begins with it and how long it lives is what
`persistence` says:

    per_query   it begins as learned, with every forward pass without a cache, every new cache, and every `generate`
    session     it lives in the cache, over as many calls of `generate` as the cache is handed to
    persistent  `generate` leaves it in the module, and the row goes on with it in the next call

A state in the module (`held`) is no parameter and not saved; sequences begin with it in eval mode, training never does.
"""

from functools import wraps
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin


class MemoryModule(nn.Module):
    """What all memories have in common; a class of memories says `first_state`, `learn_and_read` and `step`.

    Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
    """

    # The last part of the name under which `step_memory_at_inference` reports.
    surprise_name = "memory"

    def __init__(self, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        # All its cache slots: one for each evaluation of its layer in a pass.
        self.own_slots = [layer_idx]
        self.updates = params["update_at_inference"]
        self.persistence = params["persistence"]
        self.held: dict[str, torch.Tensor] = {}

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state before the first token as it was learned, one row for each of `hidden_states`."""
        raise NotImplementedError

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What every token reads, (batch, time, d_model), and the state after the last.

        `state` is that before the first token, `first` what a packed sequence begins with; padding (not `valid`, of
        shape (batch, time)) changes nothing; `known` says that the rows go on with a sequence.
        """
        raise NotImplementedError

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The state after one inner step on all valid tokens of a row, and each row's surprise before it, (batch,)."""
        raise NotImplementedError

    def at_rest(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state with which another sequence may begin where one has ended with `state`."""
        return state

    def beginning(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state that sequences begin with. Errors: ValueError when the rows are not those that it holds."""
        if self.training or not self.held:
            return self.first_state(hidden_states)
        rows = hidden_states.shape[0]
        known = next(iter(self.held.values())).shape[0]
        if known not in (1, rows):
            raise ValueError(
                f"the memory holds {known} rows and is given {rows}: a row goes on with its own memory; "
                "reset_memory() forgets them"
            )
        return {
            name: state.to(hidden_states.device).expand(rows, *state.shape[1:]) for name, state in self.held.items()
        }

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        cache: Any = None
        if past_key_values is not None and self.updates:
            cache = past_key_values.layers[self.layer_idx]
        first = self.beginning(hidden_states)
        known = cache is not None and cache.has_previous_state[0]
        state = {name: cache.get(name) for name in first} if known else first
        if sequence_ids is not None and self.held and not self.training and bool((sequence_ids != 0).any()):
            raise ValueError("a row of several sequences can't go on with one memory; reset_memory() forgets it")
        valid = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        if attention_mask is not None:
            valid = attention_mask != 0
        outputs, state = self.learn_and_read(hidden_states, state, first, valid, sequence_ids, known)
        if cache is not None:
            for name, tensor in state.items():
                cache.put(name, tensor)
            cache.advance(hidden_states.shape[1])
        return outputs

    def stepped(self, hidden_states: torch.Tensor, valid: torch.Tensor, cache: Any) -> torch.Tensor:
        """Each row's surprise, (batch,); the step lands in the cache's slot, or without one in `held` if that lasts."""
        first = self.beginning(hidden_states)
        known = cache is not None and cache.has_previous_state[0]
        if known and cache.get(next(iter(first))).shape[0] != hidden_states.shape[0]:
            raise ValueError(f"the cache does not have the {hidden_states.shape[0]} rows that the memory is stepped on")
        state, surprise = self.step(hidden_states, {name: cache.get(name) for name in first} if known else first, valid)
        if cache is not None:
            for name, tensor in state.items():
                cache.put(name, tensor)
            cache.advance(0)
        elif self.persistence != "per_query":
            self.hold(state)
        return surprise

    def hold(self, state: dict[str, torch.Tensor]) -> None:
        """Lets sequences begin with a copy of `state`."""
        self.held = {name: tensor.detach().clone() for name, tensor in self.at_rest(state).items()}


class RemembersBetweenCalls:
    """What a model with memories can do besides: step them, forget, and carry what they hold from call to call."""

    # The cache of the call of `generate` that is under way.
    _generation_cache: Any = None

    def memories(self) -> dict[str, Any]:
        """The memories that are updated at inference, by the name under which they report."""
        return {
            f"eulerstack.{name.removesuffix('.memory')}.{module.surprise_name}": module
            for name, module in self.model.named_modules()  # type: ignore[attr-defined]
            if isinstance(module, MemoryModule) and module.updates
        }

    @torch.no_grad()
    def step_memory_at_inference(
        self,
        hidden_states: torch.Tensor,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
    ) -> dict[str, float]:
        """One inner step of every memory on `hidden_states`, (batch, time, d_model); its surprise, the mean over rows.

        The step lands in the memories of `past_key_values`. Without a cache, memories of a session or longer hold it,
        and sequences begin with it until `reset_memory`; those of a query measure, and forget it. Padding, where
        `attention_mask` (batch, time) is 0, does not count. No parameter changes.
        Errors: ValueError when no memory is updated at inference, or shapes don't fit
        """
        memories = self.memories()
        width = self.config.hidden_size  # type: ignore[attr-defined]
        if not memories:
            raise ValueError("no memory of this model is updated at inference")
        if hidden_states.ndim != 3 or hidden_states.shape[-1] != width or hidden_states.shape[1] == 0:
            raise ValueError(f"hidden states are (batch, time, {width}), not {tuple(hidden_states.shape)}")
        valid = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        if attention_mask is not None:
            valid = attention_mask != 0
        surprises = {}
        for name, memory in memories.items():
            slots = [None] if past_key_values is None else [past_key_values.layers[slot] for slot in memory.own_slots]
            found = [memory.stepped(hidden_states, valid, cache) for cache in slots]
            surprises[name] = float(torch.stack(found).mean())
        return surprises

    def reset_memory(self) -> None:
        """Forgets what memories hold outside of caches: sequences begin as learned again."""
        for memory in self.memories().values():
            memory.held = {}

    def memory_state_dict(self) -> dict[str, torch.Tensor]:
        """What memories hold outside of caches, (rows, …) by name. It is no part of `state_dict`."""
        return {
            f"{name}.{key}": state for name, memory in self.memories().items() for key, state in memory.held.items()
        }

    def load_memory_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Makes memories hold what `memory_state_dict` gave, and forget all else.

        Errors: KeyError for names that no memory of this model reports under
        """
        memories = self.memories()
        held: dict[str, dict[str, torch.Tensor]] = {name: {} for name in memories}
        for full, state in state_dict.items():
            name, _, key = full.rpartition(".")
            held[name][key] = state.clone()
        for name, memory in memories.items():
            memory.held = held[name]

    @wraps(GenerationMixin.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the cache is noted, because `generate` keeps it to itself."""
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        cache, before = inputs.get("past_key_values"), self._generation_cache
        if before is not None and cache is not before and self._lasting_memories():
            raise ValueError("a persistent memory is kept from one cache, and phases without kv_share take several")
        self._generation_cache = cache
        return inputs

    def _lasting_memories(self) -> list[Any]:
        """The memories that `generate` leaves in the model."""
        return [memory for memory in self.memories().values() if memory.persistence == "persistent"]

    @wraps(GenerationMixin.generate)
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. A cache that is handed on goes on with its sessions, and begins a new query.

        Errors: ValueError when a memory is to persist, but not every row has one continuation with a cache
        """
        lasting = self._lasting_memories()
        config = kwargs.get("generation_config") or self.generation_config  # type: ignore[attr-defined]
        if lasting:
            for word in ("num_beams", "num_return_sequences"):
                if (kwargs.get(word) or getattr(config, word, None) or 1) > 1:
                    raise ValueError(f"a persistent memory follows one continuation of each row, so {word} must be 1")
            if kwargs.get("use_cache", getattr(config, "use_cache", True)) is False:
                raise ValueError("a persistent memory is kept from the cache, so use_cache can't be False")
        given = kwargs.get("past_key_values")
        for memory in self.memories().values():
            if given is not None and memory.persistence == "per_query":
                for slot in memory.own_slots:
                    given.layers[slot].reset()
        try:
            outputs = super().generate(*args, **kwargs)  # type: ignore[misc]
            if self._generation_cache is not None:
                layers = self._generation_cache.layers
                for memory in lasting:
                    memory.hold(layers[memory.layer_idx].slots)
        finally:
            self._generation_cache = None
        return outputs
