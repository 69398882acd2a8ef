"""What the benchmarks share: interleaved timing, the table of ratios, the page with its circumstances.

A ratio is worth as much as its noise is small, so each comes with an interval in which its true median lies: what
timing the same case twice could give as well is inside the interval around 1.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import eulerstack


class Quick(argparse.Action):
    """`--quick`: two repetitions, and whatever else a benchmark leaves out when `quick` is true."""

    def __call__(self, parser: object, arguments: argparse.Namespace, *given: object) -> None:
        arguments.quick, arguments.repetitions = True, 2


def parser(description: str, repetitions: int) -> argparse.ArgumentParser:
    """A command line with `--repetitions`, `--quick` and `--output`."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--repetitions", type=int, default=repetitions, help=f"default {repetitions}")
    arguments.add_argument(
        "--quick", action=Quick, nargs=0, default=False, help="the least that shows that it runs; the figures are noise"
    )
    arguments.add_argument("--output", type=Path, help="write the page to this file too")
    return arguments


@dataclass(frozen=True)
class Timing:
    """One run: seconds on the clock, and seconds of processor, which depend less on what else the machine does."""

    clock: float
    cpu: float

    def __truediv__(self, parts: int) -> Timing:
        return Timing(self.clock / parts, self.cpu / parts)


class Stopwatch:
    """`with Stopwatch() as watch:` … `watch.timing`; counts this process, or the children that end meanwhile."""

    def __init__(self, of: int = resource.RUSAGE_SELF):
        self.of = of

    def _cpu(self) -> float:
        usage = resource.getrusage(self.of)
        return usage.ru_utime + usage.ru_stime

    def __enter__(self) -> Stopwatch:
        self.start = Timing(time.perf_counter(), self._cpu())
        return self

    def __exit__(self, *exception: object) -> None:
        self.timing = Timing(time.perf_counter() - self.start.clock, self._cpu() - self.start.cpu)


def interleaved(cases: Mapping[str, Callable[[], Timing]], repetitions: int) -> dict[str, list[Timing]]:
    """What each case reports, run A B A B …, after one round that is thrown away."""
    timings: dict[str, list[Timing]] = {name: [] for name in cases}
    for round_number in range(repetitions + 1):
        for name, case in cases.items():
            timing = case()
            if round_number:
                timings[name].append(timing)
    return timings


def resident_bytes(name: str) -> int:
    """A size of this process as Linux gives it: VmRSS is the present one, VmHWM the largest since it was reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure_growth_of_memory(run: Callable[[], object]) -> int:
    """By how many bytes `run` makes this process larger at its peak (Linux)."""
    # 5 makes the present size the largest so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes("VmRSS")
    run()
    return resident_bytes("VmHWM") - before


RATIO_COLUMNS = ["ratio", "noise of paired ratios", "of the fastest", "of CPU time", "noise of CPU ratios"]


def ratio_row(what: str, ours: Sequence[Timing], theirs: Sequence[Timing]) -> list[str]:
    """A table row: medians in milliseconds, and `RATIO_COLUMNS`: of the medians, `noise` of the ratios within one
    round, of the fastest runs (those least disturbed), of the medians of processor time, and their noise."""
    clocks = [[timing.clock for timing in timings] for timings in (ours, theirs)]
    processor = [[timing.cpu for timing in timings] for timings in (ours, theirs)]
    medians = [statistics.median(clock) for clock in clocks]
    cpu = [statistics.median(times) for times in processor]
    return [
        what,
        *(f"{1000 * median:.2f}" for median in medians),
        f"{medians[0] / medians[1]:.3f}",
        noise(*clocks),
        f"{min(clocks[0]) / min(clocks[1]):.3f}",
        f"{cpu[0] / cpu[1]:.3f}",
        noise(*processor),
    ]


def noise(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The interval that holds the median of the paired ratios with a probability of 95 %, whatever their distribution.

    Below six pairs no interval is that sure; it is then the whole range, with the probability that it has.
    """
    low, high, confidence = median_interval([a / b for a, b in zip(ours, theirs, strict=True)])
    return f"{low:.3f}–{high:.3f}" + ("" if confidence >= 0.95 else f" ({100 * confidence:.0f} %)")


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(low, high, probability) of the narrowest interval between order statistics that is as sure as asked of holding
    the median, or of the whole range where none is. Source: the sign test's interval, Conover 1999, section 3.2."""
    ordered, count = sorted(values), len(values)
    outside, chosen = 0.0, (ordered[0], ordered[-1], 1 - 2 * 0.5**count)
    for left_out in range(count // 2):
        outside += math.comb(count, left_out) * 0.5**count
        if 1 - 2 * outside < confidence:
            break
        chosen = (ordered[left_out], ordered[count - 1 - left_out], 1 - 2 * outside)
    return chosen


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def hardware() -> str:
    """Processor, cores and memory in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    words = [model, f"{os.cpu_count()} logical cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        words.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory")
    return ", ".join(words)


def circumstances(packages: Sequence[str], load_before: float | None) -> str:
    """Date, hardware, versions and the command, as a markdown list."""
    versions = [f"Python {platform.python_version()}", f"eulerstack {eulerstack.__version__}"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    command = " ".join(["python", os.path.relpath(sys.argv[0]), *_shown(sys.argv[1:])])
    lines = [
        f"- Date: {datetime.date.today().isoformat()}",
        f"- Hardware: {hardware()}",
        f"- Versions: {', '.join(versions)}",
        f"- Command: `{command}`",
    ]
    if load_before is not None:
        lines.append(f"- Load average of the machine at the start: {load_before:.2f}")
    return "\n".join(lines)


def _shown(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--output` and its value, which say nothing about the measurement."""
    shown, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--output"):
            skip = argument == "--output"
            continue
        shown.append(argument)
    return shown


def load_average() -> float | None:
    """The machine's load over the last minute, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def publish(page: str, output: Path | None) -> None:
    """Prints the page, and writes it where asked."""
    print(page)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page + "\n", encoding="utf-8")
