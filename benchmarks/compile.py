"""What compiling a spec costs, beside transformers' way to the same directory and beside the floor.

Each run is a process of its own: it imports what it needs, and then measures itself while it makes a model of the same
dimensions and writes it in bfloat16. The floor draws as many normal numbers as the model has, one layer's matrix at a
time, at torch's rate on one thread, rounds them, and writes their bytes: less no way of making such a directory can do.

    python benchmarks/compile.py
    python benchmarks/compile.py --preset llm_16b_moe   # one preset, ours alone; needs the disk that its weights take
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import Stopwatch, circumstances, load_average, measure_growth_of_memory, parser, publish, table

MIB = 2**20
# Name: d_model, layers, heads, key-value heads, d_ff, vocabulary.
SIZES = {
    "0.1B": (640, 12, 10, 5, 2560, 16000),
    "1B": (2048, 18, 16, 8, 7168, 32000),
    "4B": (3072, 32, 24, 8, 10240, 64000),
}
QUICK = {"tiny": (64, 2, 4, 2, 128, 500)}
SPEC = """\
schema_version: 1
model: {{ name: bench, d_model: {0}, n_heads: {2}, n_kv_heads: {3}, d_ff: {4}, vocab_size: {5}, max_seq_len: 2048,
          dtype: bfloat16 }}
tokenizer_contract: {{ type: hf }}
embedding: {{ type: learned, positional: rope }}
layer_templates: {{ block: {{ mixer: {{ type: attention, attention: {{}} }}, ffn: {{ type: gated_mlp }} }} }}
layer_schedule: [ {{ template: block, repeat: {1} }} ]
head: {{ type: causal_lm, tie_weights: false }}
"""


def compiling(spec: str | Path, folder: Path) -> Callable[[], object]:
    """`compile_to_directory`."""
    import eulerstack as es
    import eulerstack.hf.models
    from eulerstack.compiler import writer  # noqa: F401

    ir = es.normalize_to_ir(es.load(spec))
    return lambda: es.compile_to_directory(ir, folder)


def ours(sizes: tuple[int, ...], folder: Path) -> Callable[[], object]:
    """The benchmark's own spec, compiled."""
    spec = folder.with_suffix(".yml")
    spec.write_text(SPEC.format(*sizes), encoding="utf-8")
    return compiling(spec, folder)


def theirs(sizes: tuple[int, ...], folder: Path) -> Callable[[], object]:
    """A Llama of the same dimensions, made and saved by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.models.llama import modeling_llama  # noqa: F401

    d_model, layers, heads, kv_heads, d_ff, vocab = sizes
    config = LlamaConfig(
        hidden_size=d_model, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=d_ff, vocab_size=vocab, tie_word_embeddings=False,
    )  # fmt: skip
    return lambda: AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def floor(sizes: tuple[int, ...], folder: Path) -> Callable[[], object]:
    """As many numbers as the model has matrix entries, drawn and written."""
    import torch

    d_model, layers, heads, kv_heads, d_ff, vocab = sizes
    attention = [d_model * d_model] * 2 + [d_model * kv_heads * (d_model // heads)] * 2
    counts = [vocab * d_model, *([*attention, *[d_model * d_ff] * 3] * layers), vocab * d_model]

    def run() -> None:
        with folder.open("wb") as stream:
            for count in counts:
                numbers = torch.empty(count).normal_(std=0.02).to(torch.bfloat16)
                stream.write(numbers.view(torch.uint8).numpy())

    return run


SIDES = {"ours": ours, "transformers": theirs, "floor": floor}


def child(side: str, words: list[str]) -> None:
    """Measures one run in this process and prints it: of a side, for sizes, or of a preset, by its name."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as parent:
        folder = Path(parent) / "model"
        run = compiling(words[0], folder) if side == "preset" else SIDES[side](tuple(map(int, words)), folder)
        watch = Stopwatch()

        def timed() -> None:
            with watch:
                run()

        memory = measure_growth_of_memory(timed)
    print(json.dumps({"clock": watch.timing.clock, "cpu": watch.timing.cpu, "memory": memory}))


def measure(side: str, *words: object) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--child", side, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def rows(sizes: dict[str, tuple[int, ...]], repetitions: int) -> list[list[str]]:
    """A row for each size and side; sides take turns."""
    lines = []
    for name, dimensions in sizes.items():
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(repetitions):
            for side in SIDES:
                runs[side].append(measure(side, *dimensions))
        least = {what: min(run[what] for run in runs["floor"]) for what in ("clock", "cpu")}
        for side, results in runs.items():
            median = {what: statistics.median(run[what] for run in results) for what in results[0]}
            best = {what: min(run[what] for run in results) for what in results[0]}
            lines.append(
                [
                    name,
                    side,
                    f"{median['clock']:.2f}",
                    f"{best['clock'] / least['clock']:.2f}",
                    f"{best['cpu'] / least['cpu']:.2f}",
                    f"{median['memory'] / MIB:.0f}",
                ]
            )
    return lines


def accounting(sizes: tuple[int, ...]) -> float:
    """Seconds that pricing such a model takes: parameters, FLOPs of a token and bytes of a cache, the best of many."""
    import eulerstack as es
    from eulerstack.compiler.cost import model_cost

    with tempfile.TemporaryDirectory() as parent:
        spec = Path(parent) / "spec.yml"
        spec.write_text(SPEC.format(*sizes), encoding="utf-8")
        ir = es.normalize_to_ir(es.load(spec))
    taken = []
    for _ in range(200):
        with (watch := Stopwatch()):
            price = model_cost(ir)
            _ = price.total, price.active, price.flops_per_token(2048), price.cache_bytes(2048)
        taken.append(watch.timing.clock)
    return min(taken)


def page_of_preset(name: str, load: float | None) -> str:
    """What one preset takes, compiled once."""
    import eulerstack as es

    parameters = es.count_parameters(es.normalize_to_ir(es.load(name)))
    run = measure("preset", name)
    row = [name, f"{parameters:,}", f"{run['clock']:.0f}", f"{run['memory'] / MIB:.0f}"]
    return "\n\n".join(
        [
            "# One large preset, compiled",
            circumstances(["torch", "transformers"], load),
            "One torch thread; memory is what the process grew by at its peak after it had imported everything.",
            table(["preset", "parameters", "seconds", "memory, MiB"], [row]),
        ]
    )


def main() -> None:
    """Runs the benchmark."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    command_line = parser(__doc__, repetitions=3)
    command_line.add_argument("--preset", help="compile this preset once, and nothing else")
    arguments = command_line.parse_args()
    load = load_average()
    if arguments.preset:
        publish(page_of_preset(arguments.preset, load), arguments.output)
        return
    sizes = QUICK if arguments.quick else SIZES
    header = ["parameters", "side", "seconds", "of the floor's time", "of the floor's processor time", "memory, MiB"]
    if shutil.disk_usage(tempfile.gettempdir()).free < 20e9 and not arguments.quick:
        sys.exit("20 GB of free disk space are needed for the models that are written")
    page = "\n\n".join(
        [
            "# Compiling, beside transformers and beside the floor",
            circumstances(["torch", "transformers"], load),
            "One torch thread, bfloat16, random weights; every run in a process of its own, sides taking turns, "
            f"{arguments.repetitions} rounds. Seconds are medians; ratios are those of the fastest runs. Memory is "
            "what the process grew by at its peak after it had imported everything. Goals: within 1.3 times the floor, "
            "memory under 1024 MiB and flat in the size of the model.",
            table(header, rows(sizes, arguments.repetitions)),
            "What `explain` counts of the largest of these takes "
            f"{1e6 * accounting(list(sizes.values())[-1]):.0f} µs, without torch.",
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
