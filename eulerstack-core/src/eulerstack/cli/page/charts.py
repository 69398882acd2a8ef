"""Where parameters, FLOPs and cache bytes are, and how memory grows with the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

from eulerstack.cli.page.html import Markup, element, join, table
from eulerstack.cli.page.stack import EMBEDDING, OTHER, alone
from eulerstack.cli.terminal import short_bytes, short_count
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.compiler.cost import ModelCost
    from eulerstack.ir.types import ModelIR

# The chart's drawing area, in its own units.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 220, 60, 28, 10, 12


def shares(ir: ModelIR, cost: ModelCost, painted: Mapping[str, str], context: int, batch: int) -> str:
    """A bar each for parameters, FLOPs per prompt token and cache bytes, divided by templates, and their numbers."""
    measures: dict[str, tuple[Callable[[ModelCost], float], Callable[[float], str]]] = {
        _("Params"): (lambda price: price.total, short_count),
        _("FLOPs per prompt token"): (
            lambda price: price.flops_per_token(context, "prefill"),
            lambda number: short_count(number, "G"),
        ),
        _("Cache"): (lambda price: price.cache_bytes(context, batch), short_bytes),
    }
    parts: dict[str, list[float]] = {name: [0.0] * len(measures) for name in painted}
    for layer, price in zip(ir.layers, cost.layers, strict=True):
        one = alone(cost, price)
        for index, (measure, _shown) in enumerate(measures.values()):
            parts[layer.template][index] += measure(one)
    whole = [measure(cost) for measure, _shown in measures.values()]
    parts[_("embedding")] = [cost.embedding, 0.0, 0.0]
    parts[_("head and the rest")] = [
        total - sum(part[index] for part in parts.values()) for index, total in enumerate(whole)
    ]
    colours = [*painted.values(), EMBEDDING, OTHER]
    bars = [
        join(
            element("h3", name),
            _bar([(part, values[index], whole[index]) for part, values in parts.items()], colours),
        )
        for index, name in enumerate(measures)
    ]
    rows = [
        (name, *(_number(value, total, shown) for value, total, (_m, shown) in zip(values, whole, measures.values(),
         strict=True)))
        for name, values in parts.items()
    ]  # fmt: skip
    swatches = [
        element("span", element("i", style=f"background:{colour}"), name, class_="swatch")
        for name, colour in zip(parts, colours, strict=True)
    ]
    return join(*bars, element("p", *swatches, class_="legend"), table((_("Part"), *measures), rows))


def _bar(segments: list[tuple[str, float, float]], colours: list[str]) -> Markup:
    pieces = [
        element(
            "span", style=f"width:{100 * value / total:.3f}%;background:{colour}", title=f"{name}: {value / total:.1%}"
        )
        for (name, value, total), colour in zip(segments, colours, strict=True)
        if total and value > 0
    ]
    words = ", ".join(f"{name} {value / total:.0%}" for name, value, total in segments if total and value > 0)
    return element("div", *pieces, class_="bar", role="img", aria_label=words or "0")


def _number(value: float, total: float, shown: Callable[[float], str]) -> str:
    return f"{shown(value)} ({value / total:.1%})" if total else shown(value)


def memory_chart(ir: ModelIR, cost: ModelCost, batch: int) -> str:
    """Weights and cache over the length of the context, as a chart and as a table."""
    weights = cost.weight_bytes(ir.model["dtype"], ir.compatibility["dtype_policy"])
    lengths = _lengths(ir.model["max_seq_len"])
    caches = [cost.cache_bytes(length, batch) for length in lengths]
    highest = max(1, weights + caches[-1])

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * index / max(1, len(lengths) - 1)

    def y(number: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * number / highest

    def line(numbers: list[float], name: str) -> str:
        points = " ".join(f"{x(index):.1f},{y(number):.1f}" for index, number in enumerate(numbers))
        return f'<polyline class="{name}" points="{points}"/>'

    ticks = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{LEFT - 4}" y="{y(value) + 3:.1f}" text-anchor="end">{short_bytes(value)}</text>'
        for value in (0, highest / 2, highest)
    ]
    every = -(-len(lengths) // 6)
    names = [
        f'<text x="{x(index):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{_short(length)}</text>'
        for index, length in enumerate(lengths)
        if (len(lengths) - 1 - index) % every == 0
    ]
    label = _("Memory of weights and cache at a batch of {batch}, by the length of the context").format(batch=batch)
    drawing = join(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *ticks,
        *names,
        line([float(weights)] * len(lengths), "weights"),
        line([float(cache) for cache in caches], "cache"),
        line([float(weights + cache) for cache in caches], "total"),
        "</svg>",
    )
    swatches = [
        element("span", element("i", class_=f"line {name}"), title, class_="swatch")
        for name, title in (("weights", _("Weights")), ("cache", _("Cache")), ("total", _("Both")))
    ]
    rows = [
        (f"{length:,}", short_bytes(weights), short_bytes(cache), short_bytes(weights + cache))
        for length, cache in zip(lengths, caches, strict=True)
    ]
    numbers = table((_("Tokens"), _("Weights"), _("Cache"), _("Both")), rows)
    return join(
        element("p", label, class_="note"),
        element("figure", Markup(drawing)),
        element("p", *swatches, class_="legend"),
        element("details", element("summary", _("The numbers")), numbers),
    )


def _lengths(longest: int) -> list[int]:
    """Powers of two up to the longest context, and that itself."""
    lengths = [1]
    while lengths[-1] * 2 < longest:
        lengths.append(lengths[-1] * 2)
    return [*lengths, longest] if longest > 1 else lengths


def _short(length: int) -> str:
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)
