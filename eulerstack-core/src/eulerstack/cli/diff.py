"""`eulerstack diff A B`: what changed in the architecture, and what that does to its price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import DEFAULT_MAX_ERRORS, DIFFERENT, UsageFault
from eulerstack.cli.options import json_option, max_errors_option, read, set_option, settings
from eulerstack.cli.terminal import Column, columns, say, say_json, say_table, short_bytes, short_count, styled, wrap
from eulerstack.dsl.paths import show
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.ir.diff import Difference, FieldChange, StageChange
    from eulerstack.ir.types import ModelIR


def diff(
    before: Annotated[
        str | None, typer.Argument(metavar="A", help=_("A spec file, a preset's name, or a compiled directory."))
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="B", help=_("What to compare it with; without it, A as --set changes it."))
    ] = None,
    assignments: Annotated[list[str] | None, set_option()] = None,
    max_errors: Annotated[int, max_errors_option()] = DEFAULT_MAX_ERRORS,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints fields, layers and prices that differ; ends with 3 when anything does.

    With A alone, B is A as `--set` changes it; with both, `--set` changes both.
    """
    settings.max_errors = max_errors
    if not before or (not after and not assignments):
        fix = msg("eulerstack diff {before} {after}", before=before or "A", after="B")
        raise UsageFault("A" if not before else "B", msg("a value is missing"), fix, "reference/cli.md#diff")
    old = read(before, assignments if after else None)[1]
    new = read(after or before, assignments)[1]
    from eulerstack.ir.diff import diff as difference_of

    difference, prices = difference_of(old, new), _prices(old, new)
    if as_json:
        say_json(_data(difference, prices))
    elif not difference:
        say(_("The same architecture."))
    else:
        _print(difference, prices, all(not stage.word for ir in (old, new) for stage in ir.stages))
    if difference:
        raise typer.Exit(DIFFERENT)


def _prices(before: ModelIR, after: ModelIR) -> dict[str, Any]:
    """What both models cost, at the longest context that both are made for."""
    from eulerstack.compiler.cost import model_cost

    context = min(ir.model["max_seq_len"] for ir in (before, after))
    sides = []
    for ir in (before, after):
        cost = model_cost(ir)
        sides.append(
            {
                "params": cost.total,
                "active_params": cost.active,
                "weight_bytes": cost.weight_bytes(ir.model["dtype"], ir.compatibility["dtype_policy"]),
                "flops_per_token": cost.flops_per_token(context),
                "flops_per_prompt_token": cost.flops_per_token(context, "prefill"),
                "cache_bytes": cost.cache_bytes(context),
            }
        )
    return {"context": context, "before": sides[0], "after": sides[1]}


def _data(difference: Difference, prices: Mapping[str, Any]) -> dict[str, Any]:
    """The same for programs; a value that one side does not have is left out."""
    return {
        "same": not difference,
        "fields": [_field(each) for each in difference.fields],
        "stages": [
            {
                "kind": each.kind,
                "before": [list(span) for span in each.before],
                "after": [list(span) for span in each.after],
                "fields": [_field(field) for field in each.fields],
            }
            for each in difference.stages
        ],
        "prices": dict(prices),
    }


def _field(change: FieldChange) -> dict[str, Any]:
    from eulerstack.ir.diff import MISSING

    sides = {"before": change.before, "after": change.after}
    return {"path": change.path, **{side: value for side, value in sides.items() if value is not MISSING}}


def _print(difference: Difference, prices: Mapping[str, Any], plain: bool) -> None:
    for change in difference.fields:
        _line(_shown(change))
    for stage in difference.stages:
        for line in wrap(_title(stage, plain), min(columns(), 110)):
            say(styled(line, "name"))
        if stage.kind == "changed":
            for change in stage.fields:
                _line(_shown(change), 2)
        else:
            parts = [change.after if stage.kind == "added" else change.before for change in stage.fields]
            _line(", ".join(parts), 2)
    say()
    say(_("At a context of {context} tokens:").format(context=prices["context"]))
    _print_prices(prices["before"], prices["after"])


def _title(stage: StageChange, plain: bool) -> str:
    """Which stages a change is about; they are layers where no stage is more than a layer."""
    spans = [", ".join(map(_span, spans)) for spans in dict.fromkeys((stage.before, stage.after)) if spans]
    titles = {
        ("changed", True): _("layers {span}:"),
        ("added", True): _("layers {span} added:"),
        ("removed", True): _("layers {span} removed:"),
        ("changed", False): _("stages {span}:"),
        ("added", False): _("stages {span} added:"),
        ("removed", False): _("stages {span} removed:"),
    }
    return titles[stage.kind, plain].format(span=" → ".join(spans))


def _span(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}–{span[1]}"


def _line(text: str, indent: int = 0) -> None:
    for number, line in enumerate(wrap(text, min(columns(), 110) - indent - 4)):
        say(" " * (indent + (4 if number else 0)) + line)


def _shown(change: FieldChange) -> str:
    from eulerstack.ir.diff import MISSING

    before, after = ("—" if value is MISSING else show(value) for value in (change.before, change.after))
    if before == after and isinstance(change.before, list) and isinstance(change.after, list):
        # Lists that are too long to be shown and begin alike; what _changes leaves whole has two lengths.
        before, after = (_("a list of {count}").format(count=len(value)) for value in (change.before, change.after))
    return f"{change.path}: {before} → {after}"


def _print_prices(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    names = {
        "params": (_("Params"), short_count),
        "active_params": (_("Active params"), short_count),
        "weight_bytes": (_("Weights"), short_bytes),
        "flops_per_token": (_("FLOPs per token"), lambda number: short_count(number, "G")),
        "flops_per_prompt_token": (_("FLOPs per prompt token"), lambda number: short_count(number, "G")),
        "cache_bytes": (_("Cache"), short_bytes),
    }
    rows = [
        (title, short(before[key]), short(after[key]), _growth(before[key], after[key]))
        for key, (title, short) in names.items()
    ]
    say_table([Column(""), Column("A", right=True), Column("B", right=True), Column("", right=True)], rows)


def _growth(before: float, after: float) -> str:
    if before == after:
        return "="
    return f"{(after - before) / before:+.1%}" if before else "—"
