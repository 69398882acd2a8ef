"""Lines over two logarithmic axes, with their names beneath: narrow enough to be read on a telephone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

from tools.figures.drawing import curve, label, picture

LEFT, TOP, WIDTH, HEIGHT, COLUMN = 76, 20, 424, 220, 176
Points = Sequence[tuple[float, float]]


def chart(
    title: str, across: str, lines: Mapping[str, Points], marks: Mapping[float, str], heights: Mapping[float, str]
) -> str:
    """The drawing: `lines` by their names, the axes' marks by their values; the lines may leave no axis."""
    (left, *_, right), (low, *_, high) = sorted(marks), sorted(heights)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + WIDTH * (log2(x) - log2(left)) / (log2(right) - log2(left)),
            TOP + HEIGHT * (log2(high) - log2(y)) / (log2(high) - log2(low)),
        )

    parts = []
    for value, name in heights.items():
        y = place(left, value)[1]
        parts.append(label(LEFT - 8, y + 4, name, small=True, anchor="end"))
        parts.append(f'<path class="line" stroke-opacity="0.25" d="M{LEFT} {y:.1f} h{WIDTH}"/>')
    for value, name in marks.items():
        parts.append(label(place(value, low)[0], TOP + HEIGHT + 20, name, small=True, anchor="middle"))
    parts.append(label(LEFT + WIDTH / 2, TOP + HEIGHT + 40, across, small=True, anchor="middle"))
    bottom = TOP + HEIGHT + 64
    for index, (name, points) in enumerate(lines.items()):
        assert all(left <= x <= right and low <= y <= high for x, y in points), f"{name} leaves the axes"
        parts.append(curve([place(x, y) for x, y in points], index))
        x, y = 16 + COLUMN * (index % 3), bottom + 22 * (index // 3)
        parts.append(curve([(x, y), (x + 22, y)], index))
        parts.append(label(x + 28, y + 4, name, small=True))
    return picture(LEFT + WIDTH + 32, bottom + 22 * ((len(lines) - 1) // 3) + 20, title, parts)
