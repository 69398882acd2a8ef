"""Boxes, arrows and bars as SVG text: readable on a light and on a dark page, the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2430 }
  .small { font-size: 12px; fill: #5b6270 } .accent { font-size: 12px; fill: #1f7a52 }
  .card { fill: #ffffff } .box { fill: #eef1fb; stroke: #5468c4 } .line { stroke: #5b6270; fill: none }
  .c0 { fill: #5468c4 } .c1 { fill: #d9822b } .c2 { fill: #3d9970 } .c3 { fill: #b04a8f } .c4 { fill: #7a7f8c }
  .l0 { stroke: #5468c4 } .l1 { stroke: #d9822b } .l2 { stroke: #3d9970 } .l3 { stroke: #b04a8f }
  .l4 { stroke: #7a7f8c } .l5 { stroke: #2b9eb3 } .l6 { stroke: #a3452f } .curve { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e8ee } .small { fill: #a9afbd } .accent { fill: #7fd1a8 }
    .card { fill: #1e2029 } .box { fill: #2a2f45 }
  }
"""


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A whole drawing on a card of its own."""
    inner = "\n".join(f"  {part}" for part in parts)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    words = f'{size} role="img" aria-label="{escape(title)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {words}>\n'
        f"  <style>{STYLE}  </style>\n"
        f'  <rect class="card" width="{width}" height="{height}" rx="8"/>\n{inner}\n</svg>\n'
    )


def box(x: float, y: float, width: float, height: float, *lines: str, accent: str = "") -> str:
    """A box with lines of text in its middle: those after the first are small, `accent` comes last and in colour."""
    made = [f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>']
    texts = [*lines, *([accent] if accent else [])]
    top = y + height / 2 - 8 * (len(texts) - 1) + 4
    for index, line in enumerate(texts):
        kind = "accent" if index == len(lines) else "small" if index else ""
        made.append(_text(x + width / 2, top + 16 * index, line, kind, "middle"))
    return "".join(made)


def label(x: float, y: float, text: str, small: bool = False, anchor: str = "start") -> str:
    """A line of text."""
    return _text(x, y, text, "small" if small else "", anchor)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight arrow along an axis."""
    if y1 == y2:
        back = 6 if x2 > x1 else -6
        head = f"M{x2 - back:g} {y2 - 4:g} L{x2:g} {y2:g} L{x2 - back:g} {y2 + 4:g}"
    else:
        back = 6 if y2 > y1 else -6
        head = f"M{x2 - 4:g} {y2 - back:g} L{x2:g} {y2:g} L{x2 + 4:g} {y2 - back:g}"
    return f'<path class="line" d="M{x1:g} {y1:g} L{x2:g} {y2:g} {head}"/>'


def curve(points: Sequence[tuple[float, float]], colour: int) -> str:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve l{colour}" points="{path}"/>'


def bar(x: float, y: float, width: float, height: float, colour: int) -> str:
    """A filled bar."""
    return f'<rect class="c{colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
