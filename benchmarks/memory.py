"""Time of one memory against the length of its input, forward alone and with the backward pass, and of a decoded token.

All memories stand beside nothing: the module alone, d_model 256, one sequence, float32. Where titans-pytorch is
installed its NeuralMemory of the same sizes, gates and mini-batches is timed too, over 256 tokens only, because it
keeps the weights of every token. Times are of the processor, medians of interleaved repetitions.
Needs eulerstack-titans.

    python benchmarks/memory.py [--repetitions 3] [--threads 1] [--output benchmarks/results/memory.md]
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from common import Stopwatch, Timing, circumstances, interleaved, load_average, parser, publish, table
from torch import nn

from eulerstack.hf.cache import StateLayer
from eulerstack_titans.modules.associative import AssociativeMemory
from eulerstack_titans.modules.neural_memory import NeuralMemory
from eulerstack_titans.modules.retrieval import RetrievalMemory

LENGTHS = (256, 1024, 4096)
D_MODEL, HEADS, HIDDEN = 256, 4, 512
COMMON = {"update_at_inference": True, "persistence": "session"}
NEURAL = {**COMMON, "hidden": HIDDEN, "depth": 2, "inner_lr": 0.001, "momentum": 0.9, "forget": 0.01}
# What runs token by token is measured on short inputs, and so is what keeps a network for every token.
SHORT = {
    "neural_memory, mini_batch 1": 1024,
    "titans-pytorch, batch_size 16": 256,
    "titans-pytorch, batch_size 64": 256,
}


def memories() -> dict[str, nn.Module]:
    """The modules by name, the oracle's among them where it is installed."""
    config = SimpleNamespace(hidden_size=D_MODEL, num_attention_heads=HEADS, head_dim=D_MODEL // HEADS)
    found: dict[str, Any] = {
        f"neural_memory, mini_batch {size}": NeuralMemory(config, {**NEURAL, "mini_batch": size}, 0)
        for size in (1, 16, 64)
    }
    found["associative"] = AssociativeMemory(config, {**COMMON, "hidden": 256, "inner_lr": 1.0, "forget": 0.01}, 0)
    found["retrieval, 1024 slots"] = RetrievalMemory(config, {**COMMON, "hidden": 256, "slots": 1024, "top_k": 32}, 0)
    for memory in found.values():
        memory.initialize(0.02)
    if find_spec("titans_pytorch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = import_module("titans_pytorch")
        for size in (16, 64):
            found[f"titans-pytorch, batch_size {size}"] = oracle.NeuralMemory(
                dim=D_MODEL, chunk_size=1, batch_size=size, mem_model_norm_add_residual=False,
                default_model_kwargs={"depth": 2, "expansion_factor": HIDDEN / D_MODEL},
            )  # fmt: skip
    return found


def read(memory: nn.Module, hidden_states: torch.Tensor, **words: Any) -> torch.Tensor:
    """What the memory reads; the oracle gives its state as well."""
    output = memory(hidden_states, **words)
    return output[0] if isinstance(output, tuple) else output


def forward(memory: nn.Module, length: int) -> Callable[[], Timing]:
    """One forward pass over `length` tokens."""
    hidden_states = torch.randn(1, length, D_MODEL, generator=torch.Generator().manual_seed(0))

    def run() -> Timing:
        with torch.no_grad(), Stopwatch() as watch:
            read(memory, hidden_states)
        return watch.timing

    return run


def training(memory: nn.Module, length: int) -> Callable[[], Timing]:
    """Forward and backward over `length` tokens."""
    hidden_states = torch.randn(1, length, D_MODEL, generator=torch.Generator().manual_seed(0))

    def run() -> Timing:
        memory.zero_grad(set_to_none=True)
        with Stopwatch() as watch:
            read(memory, hidden_states).square().mean().backward()
        return watch.timing

    return run


def decoding(memory: nn.Module, length: int) -> Callable[[], Timing]:
    """One token after `length` others."""
    hidden_states = torch.randn(1, length + 32, D_MODEL, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def run() -> Timing:
        cache = SimpleNamespace(layers=[StateLayer()])
        read(memory, hidden_states[:, :length], past_key_values=cache)
        with Stopwatch() as watch:
            for token in hidden_states[:, length:].split(1, dim=1):
                read(memory, token, past_key_values=cache)
        return watch.timing / 32

    return run


def main() -> None:
    """Measures and prints."""
    command_line = parser(__doc__ or "", repetitions=3)
    command_line.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    arguments = command_line.parse_args()
    torch.set_num_threads(arguments.threads)
    load, modules = load_average(), memories()
    rows = []
    for length in LENGTHS[: 1 if arguments.quick else None]:
        for kind, case in (("forward", forward), ("forward and backward", training), ("one decoded token", decoding)):
            cases = {
                name: case(memory, length)
                for name, memory in modules.items()
                if length <= SHORT.get(name, max(LENGTHS)) and not (case is decoding and name.startswith("titans"))
            }
            timings = interleaved(cases, arguments.repetitions)
            median = {name: 1000 * statistics.median(timing.cpu for timing in timings[name]) for name in cases}
            rows.append([str(length), kind, *(f"{median[name]:.2f}" if name in median else "—" for name in modules)])
    page = "\n\n".join(
        [
            "# Memories against the length of their input",
            circumstances(["torch", "transformers", "titans-pytorch"], load),
            f"Milliseconds of processor time, medians of {arguments.repetitions} interleaved repetitions after one "
            f"that is thrown away; d_model {D_MODEL}, networks of two layers with {HIDDEN} channels between them, "
            f"{HEADS} heads, one sequence, float32, torch threads: {arguments.threads}.",
            table(["tokens", "pass", *modules], rows),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
