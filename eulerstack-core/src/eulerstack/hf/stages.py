"""Stages of the stack: a layer, or several layers that something runs in its own order.

Every evaluation of a layer in one pass has cache slots of its own (`eulerstack.hf.slots`). Masks and rotations reach a
stage of several layers as lists with one entry a slot.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from eulerstack.hf.primitives import primitive_class
from eulerstack.hf.slots import Slots, evaluations_in, of_slots, slot_owners
from eulerstack.hf.streams import stream_runs


class Stage(nn.Module):
    """What the stack runs one after another; the outputs of stages are the model's hidden states."""

    @classmethod
    def of_architecture(cls, config: Any, stage: dict[str, Any], layers: list[nn.Module], slots: list[Any]) -> Any:
        """The stage that holds `layers`, as its part of the architecture describes it."""
        return cls(config, stage, layers, slots)


class ShiftedCache:
    """A cache in which every slot number stands for the slot `shift` further on."""

    def __init__(self, cache: Any, shift: int):
        self.cache, self.shift = cache, shift

    @property
    def layers(self) -> Any:
        """The cache layers from `shift` on."""
        return self.cache.layers[self.shift :]

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Adds keys and values to a slot, and returns all that it holds."""
        return self.cache.update(key, value, layer_idx + self.shift, *args, **kwargs)

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """The tokens that a slot has seen."""
        return self.cache.get_seq_length(layer_idx + self.shift)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> Any:
        """Length and offset of a slot's keys."""
        return self.cache.get_mask_sizes(query_length, layer_idx + self.shift)


def run_layers(
    layers: Iterable[nn.Module],
    slots: Sequence[Slots | None],
    stream_ends: Any,
    hidden_states: torch.Tensor,
    attention_mask: Sequence[Any],
    position_embeddings: Sequence[Any],
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What `layers` make of hidden states (batch, time, d_model), one after another, and what their routing adds to the
    loss.

    `slots` says for each whose masks and rotations it is given, as `of_slots` takes it; `stream_ends` are the layers'
    `StreamRuns`, or None.
    """
    router_losses = []
    for index, (layer, own) in enumerate(zip(layers, slots, strict=True)):
        if stream_ends is not None:
            hidden_states = stream_ends.reach(hidden_states, index)
        hidden_states = layer(
            hidden_states,
            attention_mask=of_slots(attention_mask, own),
            position_embeddings=of_slots(position_embeddings, own),
            **kwargs,
        )
        if isinstance(hidden_states, tuple):
            hidden_states, router_loss, load = hidden_states
            if router_loss is not None:
                router_losses.append(router_loss)
            if load is not None:
                layer.ffn.note_load(load)
    if stream_ends is not None:
        hidden_states = stream_ends.reach(hidden_states, len(slots))
    return hidden_states, sum(router_losses) if router_losses else None


class Integrator(Stage):
    """A stage that applies its layers as an integrator says.

    The integrator's class is made from (config, params) and called as forward(hidden_states, evaluate), where
    evaluate(hidden_states, layer, evaluation) is what the layer of that index makes of hidden states; one pass must use
    every evaluation of a layer once, because each has a cache slot of its own.
    """

    def __init__(self, config: Any, stage: dict[str, Any], layers: Sequence[nn.Module], slots: Sequence[Slots]):
        super().__init__()
        node = stage["integrator"]
        self.integrator = primitive_class("integrator", node)(config, node["params"])
        self.layers = nn.ModuleList(layers)
        self.slots = list(slots)
        # Where a layer's residual has several streams: what makes and joins them, in every evaluation.
        ends = [stream_runs(config, [block]) for block in stage["layers"]]
        self.stream_ends: Any = None if ends[0] is None else nn.ModuleList(ends)
        # Whether evaluations of one pass are those of the next, so that a cache can hold what they need.
        self.cached = stage.get("cached", True)
        self.type = node["type"]
        # The slots of one evaluation.
        self.width = len(slot_owners(config.architecture["blocks"][stage["layers"][0]]))
        for memory in (layer.memory for layer in layers if layer.memory is not None):
            memory.own_slots = [memory.layer_idx + shift * self.width for shift in range(evaluations_in(stage))]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Sequence[Any],
        position_embeddings: Sequence[Any],
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The stream after the stage, (batch, time, d_model), and what the routing of its layers adds to the loss, if
        anything."""
        if past_key_values is not None and not self.cached:
            raise ValueError(f"no cache can hold what {self.type} needs: pass use_cache=False, and all of the sequence")
        losses = []

        def evaluate(state: torch.Tensor, layer: int = 0, evaluation: int = 0) -> torch.Tensor:
            cache = past_key_values
            if cache is not None and evaluation:
                cache = ShiftedCache(cache, evaluation * self.width)
            state, loss = run_layers(
                [self.layers[layer]],
                [self.slots[layer]],
                None if self.stream_ends is None else self.stream_ends[layer],
                state,
                attention_mask,
                position_embeddings,
                past_key_values=cache,
                **kwargs,
            )
            if loss is not None:
                losses.append(loss)
            return state

        hidden_states = self.integrator(hidden_states, evaluate)
        return (hidden_states, sum(losses), None) if losses else hidden_states
