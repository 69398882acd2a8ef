"""Streams side by side: all read the same hidden states, and a merge makes one of what they hand on.

    stage = ParallelStream([fast, slow], d_model=768, merge_type="concat", stream_names=["fast", "slow"])
    hidden_states = stage(hidden_states)

Shapes: (batch, time, d_model) -> (batch, time, d_model); a concat without projection: (batch, time, streams · d_model)
State:  that of the streams' layers, and that of a merge that attends
Cost:   that of the streams and of the merge
Errors: ValueError for fewer than two streams, for names that do not tell them apart, and for a merge that does not fit
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from eulerstack.hf.primitives import primitive_class
from eulerstack.hf.slots import Slots
from eulerstack.hf.stages import Stage, run_layers
from eulerstack.hf.streams import stream_runs


class StreamLayers(nn.Module):
    """The layers of one stream, one after another. `blocks` are the indices of their parts of the architecture."""

    def __init__(self, config: Any, blocks: list[int], layers: Sequence[nn.Module], slots: Sequence[Slots]):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.slots = list(slots)
        self.stream_ends = stream_runs(config, blocks)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: Any, position_embeddings: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the stream hands on, and what the routing of its layers adds to the loss."""
        return run_layers(
            self.layers, self.slots, self.stream_ends, hidden_states, attention_mask, position_embeddings, **kwargs
        )


class ParallelStream(Stage):
    """A stage of several streams and their merge.

    Streams are modules from hidden states to hidden states; whatever else the stage is called with is handed to each.
    `merge_type` is a merge's name in the language, `merge_projection` its word `projection`, by default as there;
    `merge_from` and `merge_to` are the names of the streams that cross_attn reads from and adds to. It attends with
    `n_heads` heads, causally, to everything in this call; masks, positions and a cache are the business of models.
    """

    def __init__(
        self,
        streams: Sequence[nn.Module],
        d_model: int,
        merge_type: str = "concat",
        merge_projection: bool | None = None,
        stream_names: Sequence[str] | None = None,
        merge_from: str | None = None,
        merge_to: str | None = None,
        n_heads: int = 1,
        merge: nn.Module | None = None,
    ):
        super().__init__()
        self.streams = nn.ModuleList(streams)
        names = [f"stream{index}" for index in range(len(self.streams))] if stream_names is None else [*stream_names]
        if len(names) < 2 or len(set(names)) < len(names) or len(names) != len(self.streams):
            raise ValueError(f"{len(self.streams)} streams called {names}: two or more, each with a name of its own")
        self.stream_names = names
        if merge is None:
            if d_model % n_heads:
                raise ValueError(f"d_model {d_model} can't be divided by n_heads {n_heads}")
            given = {"projection": merge_projection, "from": merge_from, "to": merge_to}
            params = {word: value for word, value in given.items() if value is not None}
            model = {"norm_eps": 1e-5, "residual_multiplier": 1.0}
            hints = {"dropout": 0.0, "scaling": {"parametrization": "standard"}}
            config = SimpleNamespace(
                hidden_size=d_model,
                num_attention_heads=n_heads,
                num_key_value_heads=n_heads,
                head_dim=d_model // n_heads,
                _attn_implementation="sdpa",
                architecture={"model": model, "training_hints": hints},
            )
            merge = primitive_class("merge", {"type": merge_type, "params": params})(config, params, names)
        self.merge = merge
        # The cache slot of a merge that attends, where the stage is part of a model.
        self.slot: int | None = None

    @classmethod
    def of_architecture(cls, config: Any, stage: dict[str, Any], layers: list[nn.Module], slots: list[Any]) -> Any:
        """The stage that an architecture describes; `slots` are those of its layers, then that of its merge if any."""
        names, streams, first = [], [], 0
        for stream in stage["parallel"]:
            end = first + len(stream["layers"])
            streams.append(StreamLayers(config, stream["layers"], layers[first:end], slots[first:end]))
            names.append(stream["stream"])
            first = end
        node = stage["merge"]
        slot = slots[first] if first < len(slots) else None
        merge = primitive_class("merge", node)(config, node["params"], names, slot)
        made = cls(streams, config.hidden_size, stream_names=names, merge=merge)
        made.slot = slot
        return made

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        """The merged stream, and in a model what the routing of the streams' layers adds to the loss, if anything."""
        outputs, losses = [], []
        for stream in self.streams:
            output = stream(hidden_states, **kwargs)
            if isinstance(stream, StreamLayers):
                output, loss = output
                if loss is not None:
                    losses.append(loss)
            outputs.append(output)
        if self.slot is None:
            merged = self.merge(outputs)
        else:
            own = {word: kwargs[word][self.slot] for word in ("attention_mask", "position_embeddings")}
            merged = self.merge(outputs, **{**kwargs, **own})
        return (merged, sum(losses), None) if losses else merged
