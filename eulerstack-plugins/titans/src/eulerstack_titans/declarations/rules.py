"""What is legal for a memory but rarely meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from eulerstack.errors import Finding, Message, msg
from eulerstack.plugins import Rule
from eulerstack_titans.declarations.neural_memory import state_bytes

RATES = (1e-5, 0.1)
MOST_DEPTH = 4
# Over this, one mini-batch of alike tokens moves a linear memory past what it should give.
MOST_STEP = 1.0
MOST_STATE_BYTES = 2**28
# A larger correction overshoots: the error of a key grows with each time it is seen.
MOST_CORRECTION = 2.0
MOST_TOP_K = 256

Unusual = Iterator[tuple[str, Message]]


def memory_range(ir: Any) -> Iterator[Finding]:
    """Rates, depths and sizes outside what has been used; one finding a word of a template."""
    seen = set()
    for layer in ir.layers:
        if layer.memory is None or layer.memory.type not in UNUSUAL:
            continue
        for word, message in UNUSUAL[layer.memory.type](layer.memory.params, ir.model):
            if (layer.template, word) not in seen:
                seen.add((layer.template, word))
                path = f"layer_templates.{layer.template}.memory.{word}"
                yield Finding("memory_range", message, path, layer.memory.location)


def _neural(params: Any, model: Any) -> Unusual:
    if params["depth"] > MOST_DEPTH:
        yield "depth", msg("a memory of depth {depth}; published ones have 1 to {most}", depth=params["depth"],
                           most=MOST_DEPTH)  # fmt: skip
    if not params["update_at_inference"]:
        return
    rate, size = params["inner_lr"], params["mini_batch"]
    low, high = RATES
    if not low <= rate <= high:
        yield "inner_lr", msg("an inner_lr of {rate} is outside the usual range of {low} to {high}", rate=rate, low=low,
                              high=high)  # fmt: skip
    elif (step := rate * size / (1 - params["momentum"])) > MOST_STEP:
        yield "inner_lr", msg("inner_lr * mini_batch / (1 - momentum) is {step}; over 1 the memory may diverge",
                              step=f"{step:.3g}")  # fmt: skip
    if size > model["max_seq_len"]:
        yield "mini_batch", msg("a mini-batch of {size} tokens never ends in a context of {length}", size=size,
                                length=model["max_seq_len"])  # fmt: skip
    if (stored := state_bytes(model["d_model"], params)) > MOST_STATE_BYTES:
        yield "params.hidden", msg("the memory of one layer keeps {size} MiB for each sequence",
                                   size=stored // 2**20)  # fmt: skip


def _associative(params: Any, model: Any) -> Unusual:
    if params["inner_lr"] > MOST_CORRECTION:
        yield "inner_lr", msg("an inner_lr of {rate}; over 2 an associative memory overshoots and diverges",
                              rate=params["inner_lr"])  # fmt: skip


def _retrieval(params: Any, model: Any) -> Unusual:
    if params["slots"] > model["max_seq_len"]:
        yield "params.slots", msg("{slots} slots are never filled in a context of {length}", slots=params["slots"],
                                  length=model["max_seq_len"])  # fmt: skip
    if params["top_k"] > MOST_TOP_K:
        yield "params.top_k", msg("a top_k of {top_k}; published ones have 16 to {most}", top_k=params["top_k"],
                                  most=MOST_TOP_K)  # fmt: skip


UNUSUAL: dict[str, Callable[[Any, Any], Unusual]] = {
    "neural_memory": _neural,
    "associative": _associative,
    "retrieval": _retrieval,
}
MEMORY_RANGE = Rule("memory_range", "rates, depths, mini-batches and sizes of memories", memory_range)
