"""`explain --html`: one page about a model, which needs no network and no other file.

It shows the stack to scale, where parameters, FLOPs and cache bytes are, memory against context, and the spec with the
meaning of every word. It is readable without JavaScript, by keyboard, on a phone, in light and dark.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from eulerstack.cli.page.charts import memory_chart, shares
from eulerstack.cli.page.html import element, join, table
from eulerstack.cli.page.spec import spec_with_help
from eulerstack.cli.page.stack import colours, stack
from eulerstack.cli.terminal import long_count, short_bytes, short_count
from eulerstack.i18n import gettext as _
from eulerstack.i18n import language

if TYPE_CHECKING:
    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR

# Nothing is fetched from anywhere, whatever a spec's text may hold.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(spec: Spec, ir: ModelIR, data: dict[str, Any]) -> str:
    """The page's HTML. `data` is what `describe` says about the model."""
    from eulerstack.compiler.cost import model_cost

    cost = model_cost(ir)
    painted = colours(ir)
    title = _("{name}: the model explained").format(name=ir.model["name"])
    head = join(
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        element("title", title),
        f"<style>{_file('style.css')}</style>",
    )
    sections = (
        _section("sizes", _("Sizes and prices"), _summary(data)),
        _section("stack", _("The stack, to scale"), stack(ir, cost, painted, data["context"], data["batch"])),
        _section("shares", _("Where it goes"), shares(ir, cost, painted, data["context"], data["batch"])),
        _section("memory", _("Memory against context"), memory_chart(ir, cost, data["batch"])),
        _section("spec", _("The spec"), spec_with_help(spec, ir)),
    )
    links = join(*(f'<a href="#{name}">{heading}</a>' for name, heading, _body in sections))
    body = join(
        element("header", element("h1", ir.model["name"]), element("p", _facts(data)), f"<nav>{links}</nav>"),
        "<main>",
        *(section for _name, _heading, section in sections),
        "</main>",
        f"<script>{_file('script.js')}</script>",
    )
    return f'<!doctype html>\n<html lang="{language()}">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _file(name: str) -> str:
    return (files("eulerstack.cli.page") / name).read_text(encoding="utf-8")


def _section(name: str, heading: str, body: str) -> tuple[str, str, str]:
    title = escape(heading)
    section = (
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n{body}\n</section>'
    )
    return name, title, section


def _facts(data: dict[str, Any]) -> str:
    model = data["model"]
    sizes = ("d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff")
    words = [f"{name} {model[name]}" for name in sizes]
    return " · ".join(
        [*words, f"vocab_size {model['vocab_size']}", f"max_seq_len {model['max_seq_len']}", model["dtype"]]
    )


def _summary(data: dict[str, Any]) -> str:
    params, cache, training = data["params"], data["cache_bytes"], data["training_cost"]
    context = data["context"]
    least, most = (short_bytes(number) for number in training["total_bytes"])
    rows = [
        (_("Estimated params"), long_count(params["total"])),
        (_("Active params"), long_count(params["active"])),
        (_("Weights"), short_bytes(data["weight_bytes"])),
        (
            _("FLOPs per token"),
            _("{flops} at a context of {length}").format(
                flops=short_count(data["flops_per_token"], "G"), length=context
            ),
        ),
        (
            _("FLOPs per prompt token"),
            _("{flops} on average over {length} tokens").format(
                flops=short_count(data["flops_per_prompt_token"], "G"), length=context
            ),
        ),
        (
            _("Cache"),
            _("{per_token} per token, {fixed} fixed").format(
                per_token=short_bytes(cache["per_token"]), fixed=short_bytes(cache["fixed"])
            ),
        ),
        (
            _("Cache at {batch} × {length} tokens").format(batch=data["batch"], length=context),
            short_bytes(cache["at_context"]),
        ),
        (_("Training: FLOPs per token"), short_count(training["flops_per_token"], "G")),
        (
            _("Training: weights, gradients and optimizer"),
            least if least == most else f"{least}–{most}",
        ),
    ]
    return table((_("What"), _("How much")), rows, numbers=False)
