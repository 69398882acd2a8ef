"""Every mixer against the length of its input: a forward pass, a training pass, a decoded token, peak memory.

One layer of each kind at one width. Where transformers has a class of the same function, its model runs beside ours
with the same weights (imported from it), and both are checked to compute the same; its pure PyTorch path is what a
machine without CUDA kernels runs. Runs alternate; figures are medians of processor time, which depend less on what else
the machine does. Each mixer has a process of its own, because an allocator that has served others is another one. A
case whose pass would take longer than `--cap` seconds is left out from that length on. Peak memory is what a training
pass adds to one more process (Linux). Lengths double: a growth of 2 from one to the next is linear, one of 4 quadratic,
one of 1 flat.

    python benchmarks/mixers.py [--repetitions 3] [--threads 1] [--longest 8192] [--cap 60] [--only NAME …]
        [--output benchmarks/results/mixers.md] [--plots docs/images]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from common import (
    Stopwatch,
    Timing,
    circumstances,
    load_average,
    measure_growth_of_memory,
    parser,
    publish,
    table,
)
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

import eulerstack as es
from eulerstack.compiler.importing import import_checkpoint

LENGTHS = (512, 1024, 2048, 4096, 8192)
WIDTH, HEADS, VOCAB = 256, 4, 64
DECODED_TOKENS = 8
BRANCHES = {"space": {"type": "mamba", "mamba": {"variant": "mamba2"}}, "retention": {"type": "retnet", "retnet": {}}}
MIXERS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("attention", {}),
    "attention, window 512": ("attention", {"window": 512}),
    "attention, latent": ("attention", {"latent_dim": 64}),
    "attention, csa": ("attention", {"compression": {"type": "csa", "indexer": {"n_heads": 8, "d_per_head": 64}}}),
    "attention, hca": ("attention", {"compression": {"type": "hca"}}),
    "attention, nsa": ("attention", {"window_mode": "nsa"}),
    "mamba1": ("mamba", {"variant": "mamba1"}),
    "mamba2": ("mamba", {"variant": "mamba2"}),
    "retnet": ("retnet", {}),
    "hyena": ("hyena", {}),
    "ttt_layer": ("ttt_layer", {}),
    "branched": ("branched", {"branches": BRANCHES}),
}
SIZES = {"hidden_size": WIDTH, "vocab_size": VOCAB, "num_hidden_layers": 1}
LLAMA = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "intermediate_size": HEADS}
THEIRS: dict[str, Callable[[], Any]] = {
    "attention": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **LLAMA, max_position_embeddings=2 * LENGTHS[-1])),
    "mamba1": lambda: MambaForCausalLM(MambaConfig(**SIZES)),
    "mamba2": lambda: Mamba2ForCausalLM(Mamba2Config(**SIZES, num_heads=2 * WIDTH // 64, head_dim=64, n_groups=1)),
}
WORK = ("forward", "training", "decode")
# By kind of work, by who made the model: seconds for each length.
Times = dict[str, dict[str, list[float | None]]]


def ours(name: str) -> Any:
    """A model of one layer of ours."""
    mixer, params = MIXERS[name]
    block = "ttt" if mixer == "ttt_layer" else mixer
    sizes = {"d_model": WIDTH, "vocab_size": VOCAB, "max_seq_len": 2 * LENGTHS[-1], "n_heads": HEADS, "d_ff": HEADS}
    template = {"mixer": {"type": mixer, block: params}, "ffn": {"type": "gated_mlp"}}
    spec = {
        "schema_version": 1,
        "model": {"name": name, **sizes, "dtype": "float32"},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope" if mixer == "attention" else "none"},
        "layer_templates": {"layer": template},
        "layer_schedule": [{"template": "layer"}],
        "head": {"type": "causal_lm"},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)


def pair(name: str) -> dict[str, Any]:
    """Models of one layer by who made them: ours, and transformers' with the same weights where there is one."""
    if name not in THEIRS:
        return {"ours": ours(name)}
    torch.manual_seed(0)
    theirs = THEIRS[name]().float().eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / "theirs")
        import_checkpoint(Path(folder) / "theirs", Path(folder) / "ours")
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(Path(folder) / "ours", trust_remote_code=True, dtype="float32")
    ids = torch.randint(0, VOCAB, (2, 77), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = float((model(ids).logits - theirs(ids).logits).abs().max())
    if difference > 1e-4:
        raise SystemExit(f"{name}: ours and transformers' differ by {difference}: nothing to compare")
    return {"ours": model, "transformers": theirs}


def layer_of(model: Any) -> nn.Module:
    """The one layer of a model, its norms included."""
    return (model.backbone if hasattr(model, "backbone") else model.model).layers[0]


def passing(model: Any, length: int, training: bool) -> Callable[[], Timing]:
    """A forward pass of the whole one-layer model over `length` tokens; with `training`, the backward pass too."""
    ids = torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(0))

    def run() -> Timing:
        model.train(training)
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(training), Stopwatch() as watch:
            output = model(ids, use_cache=False).logits
            if training:
                output.square().mean().backward()
        return watch.timing

    return run


def decoding(model: Any, length: int) -> Callable[[], Timing]:
    """One token decoded after `length` others, as the mean of a few."""
    ids = torch.randint(0, VOCAB, (1, length + DECODED_TOKENS), generator=torch.Generator().manual_seed(0))
    words = {"cache_params": "cache_params"} if hasattr(model, "backbone") else {"past_key_values": "past_key_values"}
    ((given, returned),) = words.items()

    def run() -> Timing:
        model.eval()
        with torch.no_grad():
            cache = getattr(model(ids[:, :length], use_cache=True), returned)
            with Stopwatch() as watch:
                for token in range(length, length + DECODED_TOKENS):
                    model(ids[:, token : token + 1], use_cache=True, **{given: cache})
        return watch.timing / DECODED_TOKENS

    return run


def case(model: Any, work: str, length: int) -> Callable[[], Timing]:
    """What a case runs."""
    return decoding(model, length) if work == "decode" else passing(model, length, work == "training")


def times_of(
    models: Mapping[str, Any],
    work: str,
    lengths: list[int],
    repetitions: int,
    cap: float,
    prompts: Mapping[str, list[float | None]],
) -> dict[str, list[float | None]]:
    """Medians of processor seconds by model and length; None from where a pass would take more than `cap` seconds.

    `prompts` are the times of forward passes: what takes too long to read is not decoded after.
    """
    found: dict[str, list[float | None]] = {who: [] for who in models}
    for index, length in enumerate(lengths):
        runs: dict[str, list[float]] = {}
        for who in models:
            earlier = found[who][-1] if found[who] else 0.0
            unread = work == "decode" and prompts[who][index] is None
            # No pass here grows faster than fourfold when its length doubles.
            if earlier is not None and earlier * 4 <= cap and not unread:
                runs[who] = []
        prepared = {who: case(models[who], work, length) for who in runs}
        for round_number in range(repetitions + 1):
            for who, run in prepared.items():
                timing = run()
                if round_number or repetitions == 0:
                    runs[who].append(timing.cpu)
        for who in models:
            found[who].append(statistics.median(runs[who]) if who in runs else None)
    return found


def times_of_mixer(name: str, lengths: list[int], repetitions: int, cap: float) -> Times:
    """By kind of work and by who made the model: the times of one mixer, measured in this process."""
    models = pair(name)
    found: Times = {}
    read: dict[str, list[float | None]] = {}
    for work in WORK:
        found[work] = times_of(models, work, lengths, repetitions, cap, read)
        read = found[work] if work == "forward" else read
    return found


def times_apart(name: str, lengths: list[int], repetitions: int, cap: float, threads: int) -> Times:
    """The same, measured in a process of its own."""
    command = [sys.executable, __file__, "--times", name, "--repetitions", str(repetitions), "--cap", str(cap)]
    command += ["--threads", str(threads), "--longest", str(lengths[-1])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Times = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_of(name: str, who: str, length: int, threads: int) -> int:
    """What one training pass adds to the resident memory of a fresh process at its peak, in bytes."""
    command = [sys.executable, __file__, "--measure", name, "--who", who, "--length", str(length)]
    command += ["--threads", str(threads)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measured_peak(name: str, who: str, length: int) -> int:
    """Run in the fresh process."""
    model = pair(name)[who]
    passing(model, 64, True)()
    return measure_growth_of_memory(passing(model, length, True))


def cells(values: list[float | None], scale: float, digits: int) -> list[str]:
    """Figures, each but the first with its growth over the one before."""
    shown = []
    for index, value in enumerate(values):
        before = values[index - 1] if index else None
        text = "—" if value is None else f"{scale * value:.{digits}f}"
        shown.append(text if value is None or before is None else f"{text} (× {value / before:.2f})")
    return shown


def section(
    title: str, lengths: list[int], figures: Mapping[str, list[float | None]], scale: float, digits: int
) -> str:
    """A table of one kind of work: a row for each mixer, a column for each length."""
    rows = [[name, *cells(values, scale, digits)] for name, values in figures.items()]
    return f"## {title}\n\n" + table(["mixer", *(f"T = {length}" for length in lengths)], rows)


def ratios(lengths: list[int], figures: Mapping[str, Mapping[str, list[float | None]]]) -> str:
    """How many times longer transformers' class takes than ours."""
    rows = []
    for name in THEIRS:
        for work in WORK:
            mine, theirs = figures[work].get(name), figures[work].get(f"{name} (transformers)")
            if mine and theirs:
                pairs = zip(mine, theirs, strict=True)
                rows.append([f"{name}, {work}", *("—" if a is None or b is None else f"{b / a:.2f}" for a, b in pairs)])
    return "## transformers' time over ours\n\n" + table(["", *(f"T = {length}" for length in lengths)], rows)


def plot(
    folder: Path, lengths: list[int], figures: Mapping[str, Mapping[str, list[float | None]]], unit: Mapping[str, str]
) -> None:
    """One SVG for each kind of work, both axes logarithmic; transformers' classes are dashed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "eulerstack", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for work, lines in figures.items():
        figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
        colours = {name: pyplot.get_cmap("tab20")(index) for index, name in enumerate(MIXERS)}
        for name, values in lines.items():
            kept = [(length, value) for length, value in zip(lengths, values, strict=True) if value]
            foreign = name.endswith(" (transformers)")
            axes.plot(
                *zip(*kept, strict=True),
                label=name,
                color=colours[name.removesuffix(" (transformers)")],
                linestyle="--" if foreign else "-",
                marker="o",
                markersize=3,
            )
        axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=unit[work], title=work)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(folder / f"mixers-{work}.svg", metadata={"Date": None})
        pyplot.close(figure)


def main() -> None:
    """Measures and prints."""
    command_line = parser(__doc__ or "", repetitions=3)
    command_line.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    command_line.add_argument("--longest", type=int, default=max(LENGTHS), help=f"default {max(LENGTHS)}")
    command_line.add_argument("--cap", type=float, default=60.0, help="seconds that a pass may take; default 60")
    command_line.add_argument("--only", nargs="+", choices=list(MIXERS), help="these mixers alone")
    command_line.add_argument("--plots", type=Path, help="write a picture of each table into this folder (matplotlib)")
    command_line.add_argument("--measure", choices=list(MIXERS), help="print the peak bytes of one pass and end")
    command_line.add_argument("--times", choices=list(MIXERS), help="print the times of one mixer as JSON and end")
    command_line.add_argument("--who", help="whose model that is")
    command_line.add_argument("--length", type=int, help="tokens of that pass")
    arguments = command_line.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        print(measured_peak(arguments.measure, arguments.who, arguments.length))
        return
    lengths = [length for length in LENGTHS if length <= arguments.longest][: 1 if arguments.quick else None]
    if arguments.times:
        print(json.dumps(times_of_mixer(arguments.times, lengths, arguments.repetitions, arguments.cap)))
        return
    load = load_average()
    names = list(MIXERS)[:2] if arguments.quick else arguments.only or list(MIXERS)
    figures: dict[str, dict[str, list[float | None]]] = {work: {} for work in (*WORK, "memory")}
    for name in names:
        times = times_apart(name, lengths, arguments.repetitions, arguments.cap, arguments.threads)
        labels = {who: name if who == "ours" else f"{name} ({who})" for who in times["forward"]}
        for work in WORK:
            figures[work].update((labels[who], values) for who, values in times[work].items())
        for who, label in labels.items():
            trained = figures["training"][label]
            peaks = [
                None if seconds is None else peak_of(name, who, length, arguments.threads)
                for length, seconds in zip(lengths, trained, strict=True)
            ]
            figures["memory"][label] = [None if peak is None else float(peak) for peak in peaks]
    page = "\n\n".join(
        [
            "# Mixers against the length of their input",
            circumstances(["torch", "transformers"], load),
            f"One layer each: d_model {WIDTH}, {HEADS} heads, a feed-forward block of {HEADS} channels, a vocabulary "
            f"of {VOCAB}, float32, batch 1, torch threads: {arguments.threads}. Medians of processor time over "
            f"{arguments.repetitions} interleaved repetitions after one that is thrown away; in brackets the growth "
            "over the column before: 2 is linear, 4 quadratic, 1 flat. —: a pass would have taken over "
            f"{arguments.cap:.0f} s. Pairs of models have the same weights and give the same logits. "
            "`branched` mixes a Mamba-2 and a retention.",
            ratios(lengths, figures),
            section("Forward pass, ms", lengths, figures["forward"], 1000, 1),
            section("Training pass, ms", lengths, figures["training"], 1000, 1),
            section("One token decoded after T, ms", lengths, figures["decode"], 1000, 2),
            section("Peak memory of a training pass, MiB", lengths, figures["memory"], 2**-20, 0),
        ]
    )
    publish(page, arguments.output)
    if arguments.plots:
        units = {**dict.fromkeys(WORK, "seconds of processor"), "memory": "bytes"}
        plot(arguments.plots, lengths, figures, units)


if __name__ == "__main__":
    main()
