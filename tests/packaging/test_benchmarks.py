"""The benchmarks' own arithmetic, and that each of them has a quick mode."""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_common", FOLDER / "common.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_interval_is_the_narrowest_that_is_sure_enough(common: ModuleType) -> None:
    assert common.median_interval(range(1, 16))[:2] == (4, 12)
    assert common.median_interval(range(6))[:2] == (0, 5)
    assert common.median_interval([3.0, 1.0]) == (1.0, 3.0, 0.5)


def test_the_interval_holds_the_median_as_often_as_it_says(common: ModuleType) -> None:
    source = random.Random(0)
    runs = [common.median_interval([source.lognormvariate(0, 1) for _ in range(15)]) for _ in range(2000)]
    held = statistics.mean(low <= 1.0 <= high for low, high, _ in runs)
    assert abs(held - runs[0][2]) < 0.02 and runs[0][2] > 0.95


def test_a_row_tells_noise_of_the_clock_and_of_the_processor_apart(common: ModuleType) -> None:
    ours = [common.Timing(clock, 2.0) for clock in (2.0, 4.0, 8.0, 2.0, 4.0, 8.0)]
    theirs = [common.Timing(2.0, 1.0)] * 6
    row = dict(zip(["what", "ours", "theirs", *common.RATIO_COLUMNS], common.ratio_row("x", ours, theirs), strict=True))
    assert row["noise of paired ratios"] == "1.000–4.000" and row["noise of CPU ratios"] == "2.000–2.000"
    assert row["of CPU time"] == "2.000"
    assert common.noise([1.0, 3.0], [1.0, 1.0]) == "1.000–3.000 (50 %)"


def test_quick_means_two_repetitions(common: ModuleType) -> None:
    arguments = common.parser("", repetitions=15)
    assert (arguments.parse_args(["--quick"]).repetitions, arguments.parse_args([]).repetitions) == (2, 15)


def test_every_benchmark_takes_the_common_options_and_is_described() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FOLDER.glob("*.py"):
        if file.name != "common.py":
            text = file.read_text(encoding="utf-8")
            assert "parser(__doc__" in text, file.name
            assert f"python benchmarks/{file.name}" in page, file.name
