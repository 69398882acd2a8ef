"""The stack drawn to scale: heights are parameters, widths channels; streams stand side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from eulerstack.cli.page.html import Markup, element, join, table
from eulerstack.cli.terminal import long_count, short_bytes, short_count
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.compiler.cost import LayerCost, ModelCost
    from eulerstack.ir.types import LayerIR, ModelIR

# Told apart by people who see red and green alike: Okabe and Ito's, but for a violet in place of their blue, on which
# text can't be read.
PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#a99bea", "#d55e00", "#999999")
# Of the embedding, and of what is neither layer nor table.
EMBEDDING, OTHER = "#8da0cb", "#b3b3b3"
WHOLE_HEIGHT_REM = 44.0


def colours(ir: ModelIR) -> dict[str, str]:
    """A colour for every template, in the order of their layers; the palette begins again when it ends."""
    names = dict.fromkeys(layer.template for layer in ir.layers)
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def alone(cost: ModelCost, price: LayerCost) -> ModelCost:
    """A model of one layer and nothing else, to ask for that layer's price."""
    from eulerstack.compiler.cost import ModelCost
    from eulerstack.plugins import Cost

    return ModelCost(embedding=0, positions=Cost(), layers=(price,), final_norm=0, head=Cost(), cached=cost.cached)


def stack(ir: ModelIR, cost: ModelCost, painted: Mapping[str, str], context: int, batch: int) -> str:
    """The embedding, every stage and the head, from the input to the output."""
    drawing = _Drawing(ir, cost, painted, context, batch)
    legend = element(
        "p",
        _("Height: parameters. Width: channels. Equal layers in a row share a block. Open a block for its numbers."),
        class_="note",
    )
    label = escape(_("The stack, from the input to the output"))
    return join(legend, f'<ol class="stack" aria-label="{label}">', *drawing.lines(), "</ol>")


class _Drawing:
    def __init__(self, ir: ModelIR, cost: ModelCost, painted: Mapping[str, str], context: int, batch: int):
        self.ir, self.cost, self.painted = ir, cost, painted
        self.context, self.batch = context, batch
        self.width = max([ir.model["d_model"], *(_width(layer, ir) for layer in ir.layers)])
        self.columns = _columns(ir)

    def lines(self) -> Iterator[str]:
        """One list item a stage, equal ones in a row drawn together."""
        yield self._table_block(_("embedding"), self.cost.embedding, EMBEDDING)
        index = 0
        for stage, run in groupby(self.ir.stages):
            count = sum(1 for _ in run)
            size = len(stage.layers)
            if not stage.word:
                yield self._layers(stage.layers[0], index, count)
            elif hasattr(stage, "streams"):
                for _copy in range(count):
                    yield self._streams(stage, index)
                    index += size
                continue
            else:
                for _copy in range(count):
                    yield self._integrator(stage, index)
                    index += size
                continue
            index += count * size
        drafts = 0 if self.cost.drafts is None else self.cost.drafts.total
        head = self.cost.head.params + self.cost.final_norm + drafts
        name = _("head")
        yield self._table_block(f"{name} {self.ir.head.type}", head, EMBEDDING)

    def _height(self, params: int) -> str:
        share = params / max(1, self.cost.total)
        return f"min-height:{max(1.7, WHOLE_HEIGHT_REM * share):.2f}rem"

    def _table_block(self, name: str, params: int, colour: str) -> Markup:
        width = 100 * self.ir.model["d_model"] / self.width
        style = f"{self._height(params)};width:{width:.1f}%;background:{colour}"
        label = element("span", name, class_="name") + element("span", short_count(params), class_="count")
        return element("li", element("div", Markup(label), class_="block", style=style))

    def _layers(self, layer: LayerIR, first: int, count: int) -> Markup:
        return element("li", self._block(layer, first, count))

    def _block(self, layer: LayerIR, first: int, count: int) -> Markup:
        price = self.cost.layers[first]
        width = 100 * _width(layer, self.ir) / self.width
        style = f"{self._height(count * price.params)};width:{width:.1f}%;background:{self.painted[layer.template]}"
        numbers = str(first) if count == 1 else f"{first}–{first + count - 1}"
        parts = " + ".join(_made_of(layer))
        column = self.columns.get(layer.template)
        label = join(
            element("span", f"{numbers} {layer.template}", class_="name"),
            element("span", parts, class_="parts"),
            element("span", column, class_="column") if column else "",
            element("span", f"{short_count(price.params)}{f' × {count}' if count > 1 else ''}", class_="count"),
        )
        ticks = (
            element("span", class_="ticks", style=f"--layers:{count}", aria_hidden="true") if count > 1 else Markup("")
        )
        summary = element("summary", Markup(label + ticks), class_="block", style=style)
        return element("details", summary, self._numbers(layer, price))

    def _numbers(self, layer: LayerIR, price: LayerCost) -> Markup:
        one = alone(self.cost, price)
        rows = [
            (_("Params"), long_count(price.params)),
            (_("Active params"), long_count(price.active)),
            (_("FLOPs per token"), short_count(one.flops_per_token(self.context), "G")),
            (_("FLOPs per prompt token"), short_count(one.flops_per_token(self.context, "prefill"), "G")),
            (_("Cache"), short_bytes(one.cache_bytes(self.context, self.batch))),
            ("mixer", _node(layer.mixer)),
            ("ffn", _node(layer.ffn)),
            ("norm", f"{_node(layer.norm)}, {layer.norm.position}"),
            ("residual", _node(layer.residual)),
        ]
        for word in ("memory", "shape_change", "depth_gating"):
            wrapped = getattr(layer, word, None)
            if wrapped is not None:
                rows.append((word, _node(wrapped) if hasattr(wrapped, "type") else _words(wrapped)))
        return table((_("What"), _("How much")), rows, numbers=False)

    def _streams(self, stage: Any, first: int) -> Markup:
        columns = []
        for stream in stage.streams:
            blocks, index = [], first
            for layer, run in groupby(stream.layers):
                count = sum(1 for _ in run)
                blocks.append(element("li", self._block(layer, index, count)))
                index += count
            first = index
            columns.append(
                element("div", element("h3", stream.name), element("ol", *blocks, class_="inner"), class_="stream")
            )
        caption = element("p", f"merge: {_node(stage.merge)}", class_="caption")
        return element("li", element("div", *columns, class_="streams"), caption, class_="stage")

    def _integrator(self, stage: Any, first: int) -> Markup:
        times = self.cost.layers[first].evaluations
        title = f"{stage.integrator.type} {_words(stage.integrator.params)}"
        caption = element("p", title, class_="caption")
        if times > 1:
            caption = join(caption, element("p", _("evaluated {times} times").format(times=times), class_="caption"))
        blocks = element("li", self._block(stage.body, first, stage.copies))
        return element("li", caption, element("ol", blocks, class_="inner"), class_="stage")


def _made_of(layer: LayerIR) -> Sequence[str]:
    """The types of a layer's parts that a reader looks for first."""
    held = ", ".join(f"{name}: {node.type}" for name, node in layer.mixer.held.items())
    mixer = f"{layer.mixer.type} ({held})" if held else layer.mixer.type
    memory = getattr(layer, "memory", None)
    gating = layer.depth_gating
    return [
        mixer,
        *([layer.ffn.type] if layer.ffn.type != "none" else []),
        *([memory.type] if memory else []),
        *([f"depth_gating {gating['capacity']:g}"] if gating else []),
    ]


def _width(layer: LayerIR, ir: ModelIR) -> int:
    change = getattr(layer, "shape_change", None)
    words = getattr(change, "params", change) if change is not None else None
    return words["d_out"] if words is not None and "d_out" in words else ir.model["d_model"]


def _columns(ir: ModelIR) -> dict[str, str]:
    """The tissue's column by template."""
    return {name: column["name"] for column in ir.tissue.get("columns", ()) for name in column["templates"]}


def _node(node: Any) -> str:
    words = _words(node.params)
    return f"{node.type} {words}" if words else node.type


def _words(params: Mapping[str, Any]) -> str:
    """Parameters that say something, as a spec would write them."""
    from eulerstack.dsl.paths import show
    from eulerstack.ir.types import thaw

    return ", ".join(f"{key}: {show(thaw(value))}" for key, value in params.items() if value not in (None, False))
