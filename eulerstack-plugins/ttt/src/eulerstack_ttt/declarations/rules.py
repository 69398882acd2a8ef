"""What is legal for `ttt_layer` but rarely meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, Message, msg
from eulerstack.plugins import Rule

SGD_RATES = (0.001, 10.0)
MOST_ADAMW_RATE = 0.1
MOST_STEPS = 8


def ttt_range(ir: Any) -> Iterator[Finding]:
    """Learning rates, steps and mini-batches outside what has been used; one finding a word of a template."""
    seen = set()
    for place, mixer in (placed for layer in ir.layers for placed in layer.placed_mixers):
        if mixer.type != "ttt_layer":
            continue
        for word, message in _unusual(mixer.params, ir.model["max_seq_len"]):
            path = f"{place}.ttt.{word}"
            if path not in seen:
                seen.add(path)
                yield Finding("ttt_range", message, path, mixer.location)


def _unusual(params: Any, length: int) -> Iterator[tuple[str, Message]]:
    """(word, what is unusual) of one block."""
    rate, steps, size = params["inner_lr"], params["inner_steps_per_token"], params["mini_batch"]
    low, high = (0.0, MOST_ADAMW_RATE) if params["inner_optimizer"] == "adamw" else SGD_RATES
    if not low <= rate <= high:
        yield "inner_lr", msg("an inner_lr of {rate} is outside the usual range of {low} to {high}", rate=rate, low=low,
                              high=high)  # fmt: skip
    if steps > MOST_STEPS:
        yield "inner_steps_per_token", msg("{steps} inner steps are {steps} updates of the state a token", steps=steps)
    if size > length:
        yield "mini_batch", msg("a mini-batch of {size} tokens never ends in a context of {length}", size=size,
                                length=length)  # fmt: skip


TTT_RANGE = Rule("ttt_range", "inner learning rates, steps and mini-batches of ttt_layer", ttt_range)
