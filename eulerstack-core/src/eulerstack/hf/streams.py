"""Residual streams of a list of layers: where they begin and where they end.

A residual may keep several streams, (batch, time, streams, d_model), where others keep one, (batch, time, d_model).
Streams flow through layers that follow one another as long as these have the same residual and number of streams, a
run; before a run they are made from the one stream there is, after it joined into one.
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.primitives import primitive_class
from eulerstack.hf.tables import ByName


class StreamRuns(nn.ModuleList):
    """The ends of every run in a list of stages, in order: indices of their blocks, or stages that hold layers.

    A stage that holds layers is given one stream.

    A residual's class names in `stream_ends` the class of the ends, made with the parameters of a run's last layer.
    """

    def __init__(self, config: Any, stages: list[Any]):
        super().__init__()
        # For each layer, the run that it belongs to.
        self.runs: list[int | None] = []
        lasts: list[dict[str, Any]] = []
        before: Any = None
        for stage in stages:
            residual = config.architecture["blocks"][stage]["residual"] if isinstance(stage, int) else {}
            kind = (residual["type"], residual["residual_streams"]) if "residual_streams" in residual else None
            if kind is not None and kind != before:
                lasts.append(residual)
            elif kind is not None:
                lasts[-1] = residual
            self.runs.append(None if kind is None else len(lasts) - 1)
            before = kind
        for residual in lasts:
            self.append(primitive_class("residual", residual).stream_ends(config, residual["params"]))

    def reach(self, hidden_states: torch.Tensor, layer: int) -> torch.Tensor:
        """The state as layer number `layer` takes it; after the last one, as one stream."""
        before = self.runs[layer - 1] if layer > 0 else None
        here = self.runs[layer] if layer < len(self.runs) else None
        if before != here:
            if before is not None:
                hidden_states = self[before].leave(hidden_states)
            if here is not None:
                hidden_states = self[here].enter(hidden_states)
        return hidden_states


# What a stack has beside its layers where a residual declares streams.
STREAMS: ByName = {
    "residual_streams": StreamRuns,
}


def stream_runs(config: Any, stages: list[Any]) -> Any:
    """The `StreamRuns` of a list of stages; None where each has one stream."""
    blocks = config.architecture["blocks"]
    if not any(isinstance(stage, int) and "residual_streams" in blocks[stage]["residual"] for stage in stages):
        return None
    return STREAMS["residual_streams"](config, stages)
