"""Hyena against attention of the same width: reading a sequence, training on it, decoding a token after it.

One layer of each, in one process; runs alternate. The attention is ours through transformers' SDPA, with a projection
width equal to Hyena's d_model, all heads its own. A second table shows how each grows: its time over its own at the
shortest length.

    python benchmarks/hyena.py [--repetitions 7] [--threads 1] [--width 256] [--output benchmarks/results/hyena.md]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from common import (
    RATIO_COLUMNS,
    Stopwatch,
    Timing,
    circumstances,
    interleaved,
    load_average,
    parser,
    publish,
    ratio_row,
    table,
)
from torch import nn

import eulerstack as es

LENGTHS = (512, 1024, 2048, 4096, 8192)
DECODED_TOKENS = 8
HEAD_DIM = 64


def model_of(mixer: str, width: int) -> nn.Module:
    """A model of one layer and a small vocabulary, so that the mixer is most of its work."""
    spec = {
        "schema_version": 1,
        "model": {
            "name": f"{mixer}-layer",
            "d_model": width,
            "vocab_size": 64,
            "max_seq_len": 2 * max(LENGTHS),
            "n_heads": width // HEAD_DIM,
            "d_ff": HEAD_DIM,
            "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {"layer": {"mixer": {"type": mixer, mixer: {}}, "ffn": {"type": "mlp"}}},
        "layer_schedule": [{"template": "layer"}],
        "head": {"type": "causal_lm"},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)


def reader(model: nn.Module, ids: torch.Tensor) -> Callable[[], Timing]:
    """The mixer's forward pass, with gradients to come as in training."""
    hidden_states = model.model.embed_tokens(ids).detach()
    position_embeddings = (
        model.model.rotary_embs[0](hidden_states, torch.arange(ids.shape[1])[None])
        if len(model.model.rotary_embs)
        else None
    )
    mixer = model.model.layers[0].mixer

    def run() -> Timing:
        with Stopwatch() as watch:
            mixer(hidden_states, position_embeddings=position_embeddings)
        return watch.timing

    return run


def trainer(model: nn.Module, ids: torch.Tensor) -> Callable[[], Timing]:
    """Forward and backward pass of the whole small model."""

    def run() -> Timing:
        with Stopwatch() as watch:
            model(ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()
        return watch.timing

    return run


def decoder(model: nn.Module, ids: torch.Tensor) -> Callable[[], Timing]:
    """A decoded token after a context, a mean over a few."""

    @torch.no_grad()
    def run() -> Timing:
        output = model(ids, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        # The first token computes what later ones keep: Hyena's filters.
        model(ids[:, :1], past_key_values=cache, use_cache=True)
        with Stopwatch() as watch:
            for _ in range(DECODED_TOKENS):
                model(ids[:, :1], past_key_values=cache, use_cache=True)
        return watch.timing / DECODED_TOKENS

    return run


KINDS = {"mixer forward": reader, "training step": trainer, "decoded token": decoder}


def main() -> None:
    """Runs the benchmark."""
    arguments = parser(__doc__ or "", repetitions=7)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--width", type=int, default=256)
    options = arguments.parse_args()
    load = load_average()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    lengths = LENGTHS[:2] if options.quick else LENGTHS
    models = {mixer: model_of(mixer, options.width) for mixer in ("hyena", "attention")}
    rows, growth = [], []
    for kind, make in KINDS.items():
        first: dict[str, float] = {}
        for length in lengths:
            ids = torch.randint(0, 64, (1, length))
            timings = interleaved({name: make(model, ids) for name, model in models.items()}, options.repetitions)
            rows.append(ratio_row(f"{kind}, {length} tokens", timings["hyena"], timings["attention"]))
            medians = {name: statistics.median(each.clock for each in found) for name, found in timings.items()}
            first = first or medians
            times = [f"{medians[name] / first[name]:.2f}" for name in ("hyena", "attention")]
            growth.append([f"{kind}, {length} tokens", f"{length / lengths[0]:.0f}", *times])
    page = "\n\n".join(
        [
            "# Hyena against attention of the same width",
            circumstances(["torch", "transformers"], load),
            f"One process, torch threads: {options.threads}, float32, one sequence, one layer of width "
            f"{options.width}, {options.repetitions} interleaved repetitions after one that is thrown away. Attention "
            f"is SDPA. A decoded token is a mean over {DECODED_TOKENS} after the given context; a training step is "
            "forward and backward.",
            table(["run", "hyena, ms", "attention, ms", *RATIO_COLUMNS], rows),
            f"How each grows from {lengths[0]} tokens (ratios of medians):",
            table(["run", "length", "hyena", "attention"], growth),
        ]
    )
    publish(page, options.output)


if __name__ == "__main__":
    main()
