"""Time and peak memory of one retention layer against the length of its input: chunkwise beside parallel.

Both layers have the same weights, which is checked by comparing what they compute. Each measurement is a forward and a
backward pass of one sequence, in turn: chunkwise, parallel, chunkwise, parallel … Times are of the processor, which
depend less on what else the machine does. Peak memory is what a pass adds to a process of its own, for each length and
form (Linux). Lengths double, so a growth of 2 from one to the next is linear and one of 4 quadratic.

    python benchmarks/retention.py [--repetitions 3] [--threads 1] [--output benchmarks/results/retention.md]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from common import (
    Stopwatch,
    Timing,
    circumstances,
    interleaved,
    load_average,
    measure_growth_of_memory,
    parser,
    publish,
    table,
)
from torch import nn

import eulerstack as es

LENGTHS = (512, 1024, 2048, 4096, 8192)
D_MODEL, HEADS, CHUNK = 256, 4, 128
FORMS = {"chunkwise": True, "parallel": False}


def layer(chunkwise: bool) -> nn.Module:
    """One retention layer, the same numbers for both forms."""
    spec = {
        "schema_version": 1,
        "model": {
            "name": "retention",
            "d_model": D_MODEL,
            "vocab_size": 16,
            "max_seq_len": max(LENGTHS),
            "n_heads": HEADS,
            "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "none"},
        "layer_templates": {
            "decoder": {
                "mixer": {
                    "type": "retnet",
                    "retnet": {"chunkwise": chunkwise, "chunk_size": CHUNK if chunkwise else None},
                },
                "ffn": {"type": "gated_mlp"},
            }
        },
        "layer_schedule": [{"template": "decoder", "repeat": 1}],
        "head": {"type": "causal_lm"},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0).model.layers[0].mixer.train()


def training_pass(mixer: nn.Module, length: int) -> Callable[[], Timing]:
    """Forward and backward over `length` tokens."""
    hidden_states = torch.randn(1, length, D_MODEL, generator=torch.Generator().manual_seed(0))

    def run() -> Timing:
        mixer.zero_grad(set_to_none=True)
        with Stopwatch() as watch:
            mixer(hidden_states).square().mean().backward()
        return watch.timing

    return run


def peak_bytes(form: str, length: int, threads: int) -> int:
    """What one pass adds to the resident memory of a fresh process at its peak."""
    command = [sys.executable, __file__, "--measure", form, "--length", str(length), "--threads", str(threads)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(form: str, length: int) -> int:
    """Run in the fresh process: the peak of a pass beyond what is held before it."""
    mixer = layer(FORMS[form])
    training_pass(mixer, CHUNK)()
    run = training_pass(mixer, length)
    return measure_growth_of_memory(run)


def check_equal(mixers: dict[str, nn.Module]) -> float:
    """The largest difference between the two forms, relative to the output; they must be one function."""
    hidden_states = torch.randn(2, 3 * CHUNK + 7, D_MODEL)
    with torch.no_grad():
        outputs = [mixer.double()(hidden_states.double()) for mixer in mixers.values()]
        difference = float((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max())
    for mixer in mixers.values():
        mixer.float()
    if difference > 1e-9:
        raise SystemExit(f"the two forms differ by {difference}: nothing to compare")
    return difference


def growth(values: list[float], index: int) -> str:
    """How many times the value of the length before."""
    return f"× {values[index] / values[index - 1]:.2f}" if index else "—"


def main() -> None:
    """Measures and prints."""
    command_line = parser(__doc__ or "", repetitions=3)
    command_line.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    command_line.add_argument("--longest", type=int, default=max(LENGTHS), help=f"default {max(LENGTHS)}")
    command_line.add_argument("--measure", choices=list(FORMS), help="print the peak bytes of one pass and end")
    command_line.add_argument("--length", type=int, help="tokens of that pass")
    arguments = command_line.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        print(measure_peak(arguments.measure, arguments.length))
        return
    load = load_average()
    lengths = [length for length in LENGTHS if length <= arguments.longest][: 2 if arguments.quick else None]
    mixers = {form: layer(chunkwise) for form, chunkwise in FORMS.items()}
    difference = check_equal(mixers)
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    peaks: dict[str, list[float]] = {form: [] for form in FORMS}
    for length in lengths:
        cases = {form: training_pass(mixer, length) for form, mixer in mixers.items()}
        timings = interleaved(cases, arguments.repetitions)
        for form in FORMS:
            times[form].append(statistics.median(timing.cpu for timing in timings[form]))
            peaks[form].append(peak_bytes(form, length, arguments.threads))
    rows = [
        [
            str(length),
            *(cell for form in FORMS for cell in (f"{1000 * times[form][index]:.1f}", growth(times[form], index))),
            f"{times['parallel'][index] / times['chunkwise'][index]:.2f}",
            *(cell for form in FORMS for cell in (f"{peaks[form][index] / 2**20:.0f}", growth(peaks[form], index))),
            f"{peaks['parallel'][index] / peaks['chunkwise'][index]:.2f}",
        ]
        for index, length in enumerate(lengths)
    ]
    header = ["tokens", "chunkwise, ms", "growth", "parallel, ms", "growth", "parallel / chunkwise"]
    header += ["chunkwise, peak MiB", "growth", "parallel, peak MiB", "growth", "parallel / chunkwise"]
    page = "\n\n".join(
        [
            "# Retention against the length of its input",
            circumstances(["torch", "transformers"], load),
            f"One layer: d_model {D_MODEL}, {HEADS} heads, chunks of {CHUNK}, float32, torch threads: "
            f"{arguments.threads}; forward and backward of one sequence. Times are medians of processor time over "
            f"{arguments.repetitions} interleaved repetitions after one that is thrown away; peaks are what a pass "
            "adds to a fresh process. Growth is over the row above: 2 is linear, 4 quadratic. In float64 the forms "
            f"differ by {difference:.1e} of the output.",
            table(header, rows),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
