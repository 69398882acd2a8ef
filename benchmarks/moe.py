"""A mixture of experts against the number of its experts, of which a token always passes through two.

One layer's mixture, beside the block of transformers' Mixtral with the same weights under the implementation of experts
that transformers chooses for its models; both are checked to compute the same. A forward pass, and forward with
backward. Runs alternate. Time that grows with the experts and not with top_k would show as growth from row to row.

    python benchmarks/moe.py [--repetitions 7] [--threads 1] [--tokens 2048] [--output benchmarks/results/moe.md]
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
from transformers import MixtralConfig, MixtralForCausalLM

import eulerstack as es

EXPERTS = (4, 8, 16, 32, 64, 128)
WIDTH, D_EXPERT, TOP_K = 256, 256, 2


def ours(experts: int) -> nn.Module:
    """The mixture of a model of one layer."""
    spec = {
        "schema_version": 1,
        "model": {
            "name": "moe",
            "d_model": WIDTH,
            "vocab_size": 16,
            "max_seq_len": 64,
            "n_heads": 4,
            "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "none"},
        "layer_templates": {
            "layer": {
                "mixer": {"type": "attention"},
                "ffn": {
                    "type": "moe",
                    "experts": experts,
                    "top_k": TOP_K,
                    "d_expert": D_EXPERT,
                    "load_balance_coef": 0,
                },
            }
        },
        "layer_schedule": [{"template": "layer"}],
        "head": {"type": "causal_lm"},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0).model.layers[0].ffn


def theirs(experts: int, like: nn.Module) -> nn.Module:
    """Mixtral's block with the same weights."""
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=D_EXPERT, num_local_experts=experts, num_experts_per_tok=TOP_K,
        num_hidden_layers=1, vocab_size=16, num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    block = MixtralForCausalLM(config).float().model.layers[0].mlp
    block.load_state_dict({name.replace("router.", "gate."): value for name, value in like.state_dict().items()})
    return block


def passing(block: nn.Module, states: torch.Tensor, training: bool) -> Callable[[], Timing]:
    """One pass over the tokens."""

    def run() -> Timing:
        block.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(training), Stopwatch() as watch:
            output = block(states)
            if training:
                output.square().mean().backward()
        return watch.timing

    return run


def main() -> None:
    """Measures and prints."""
    command_line = parser(__doc__ or "", repetitions=7)
    command_line.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    command_line.add_argument("--tokens", type=int, default=2048, help="default 2048")
    arguments = command_line.parse_args()
    torch.set_num_threads(arguments.threads)
    load = load_average()
    torch.manual_seed(0)
    states = torch.randn(1, arguments.tokens, WIDTH)
    rows, growth = [], []
    first: dict[str, float] = {}
    for experts in EXPERTS[: 2 if arguments.quick else None]:
        mine = ours(experts)
        other = theirs(experts, mine)
        with torch.no_grad():
            difference = float((mine(states) - other(states)).abs().max())
        if difference > 1e-4:
            raise SystemExit(f"{experts} experts: the two differ by {difference}: nothing to compare")
        for training, what in ((False, "forward"), (True, "forward and backward")):
            cases = {name: passing(block, states, training) for name, block in (("ours", mine), ("theirs", other))}
            timings = interleaved(cases, arguments.repetitions)
            rows.append(ratio_row(f"{experts} experts, {what}", timings["ours"], timings["theirs"]))
            median = statistics.median(timing.cpu for timing in timings["ours"])
            growth.append([f"{experts} experts, {what}", f"× {median / first.setdefault(what, median):.2f}"])
    page = "\n\n".join(
        [
            "# A mixture of experts against the number of its experts",
            circumstances(["torch", "transformers"], load),
            f"d_model {WIDTH}, d_expert {D_EXPERT}, top_k {TOP_K}, {arguments.tokens} tokens, float32, torch threads: "
            f"{arguments.threads}, {arguments.repetitions} interleaved repetitions after one that is thrown away.",
            table(["run", "ours, ms", "Mixtral's, ms", *RATIO_COLUMNS], rows),
            f"Ours over its own time with {EXPERTS[0]} experts (medians of processor time):",
            table(["run", "growth"], growth),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
