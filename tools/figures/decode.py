"""Time of one decoded token against the tokens before it: the table of benchmarks/results/mixers.md, drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil, floor, log2
from pathlib import Path

from tools.figures.chart import chart

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "mixers.md"
TABLE = re.compile(r"^## One token decoded after T, ms\n\n(.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
MIXERS = {
    "attention": "attention",
    "attention, window 512": "attention, window 512",
    "attention, latent": "attention, latent",
    "retnet": "RetNet",
    "mamba2": "Mamba-2",
    "mamba1": "Mamba-1",
    "hyena": "Hyena",
}
KOREAN = {
    "attention": "attention",
    "attention, window 512": "attention, 윈도 512",
    "attention, latent": "attention, latent",
    "RetNet": "RetNet",
    "Mamba-2": "Mamba-2",
    "Mamba-1": "Mamba-1",
    "Hyena": "Hyena",
    "tokens before the one that is decoded": "디코딩하는 토큰 앞의 토큰 수",
    "Time of decoding one token against the length of the context": "컨텍스트 길이에 따라 토큰 하나를 디코딩하는 시간",
}


def svg(say: Callable[[str], str]) -> str:
    """The drawing; `say` gives its words in the reader's language."""
    times = measured()
    lines = {say(label): times[name] for name, label in MIXERS.items()}
    marks = {length: f"{length:,.0f}" for length, _ in times["attention"]}
    shown = [time for points in lines.values() for _, time in points]
    powers = range(floor(log2(min(shown))), ceil(log2(max(shown))) + 1)
    heights = {2.0**power: f"{2.0**power:g} ms" for power in powers}
    title = say("Time of decoding one token against the length of the context")
    return chart(title, say("tokens before the one that is decoded"), lines, marks, heights)


def measured() -> dict[str, list[tuple[float, float]]]:
    """(tokens before, milliseconds) of every mixer that was measured."""
    found = TABLE.search(RESULTS.read_text(encoding="utf-8"))
    assert found, f"{RESULTS} has no table of decoding"
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    lengths = [float(cell.removeprefix("T = ")) for cell in header[1:]]
    return {name: list(zip(lengths, (float(cell.split()[0]) for cell in cells), strict=True)) for name, *cells in rows}
