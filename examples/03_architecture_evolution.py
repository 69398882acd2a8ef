"""Several presets side by side: how an architecture changed, and what each step costs. Needs no torch.

    python examples/03_architecture_evolution.py
    python examples/03_architecture_evolution.py --preset llm_0p8b_simple --preset llm_0p8b_jamba --context 65536

The default walks from GPT-2's block to a hybrid with experts. What changed between two: `eulerstack diff ONE OTHER`.
"""

from __future__ import annotations

import argparse
from collections import Counter

import eulerstack as es
from eulerstack.compiler.cost import model_cost

PATH = ("arch_beginner_gpt2", "arch_beginner_llama", "arch_intermediate_mistral", "arch_advanced_jamba",
        "arch_expert_research")  # fmt: skip


def main() -> None:
    """One line a preset: its parameters, and what decoding a token costs at the end of a long context."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", default=[], dest="presets")
    parser.add_argument("--context", type=int, default=32768, help="tokens that the cache holds (default 32768)")
    options = parser.parse_args()
    names = options.presets or list(PATH)

    models = [es.normalize_to_ir(es.load(name)) for name in names]
    width = max(map(len, names))
    print(f"{'':{width}}  {'params':>8}  {'active':>8}  {'GFLOP/token':>11}  {'cache MiB':>9}  mixers")
    for name, ir in zip(names, models, strict=True):
        cost = model_cost(ir)
        mixers = Counter(layer.mixer.type for layer in ir.layers)
        print(
            f"{name:{width}}  {cost.total / 1e9:7.3f}B  {cost.active / 1e9:7.3f}B  "
            f"{cost.flops_per_token(options.context) / 1e9:11.2f}  {cost.cache_bytes(options.context) / 2**20:9.1f}  "
            + ", ".join(f"{count} {mixer}" for mixer, count in mixers.items())
        )


if __name__ == "__main__":
    main()
