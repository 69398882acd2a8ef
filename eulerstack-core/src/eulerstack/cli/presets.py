"""`eulerstack presets list` and `presets show`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import chosen, json_option, preset_option, read, spec_argument
from eulerstack.cli.preset_picture import in_language, place, show
from eulerstack.cli.terminal import (
    Column,
    columns,
    is_terminal,
    say,
    say_json,
    say_table,
    short_count,
    styled,
    wrap,
)
from eulerstack.errors import EulerStackError, msg
from eulerstack.i18n import gettext as _
from eulerstack.preset_headers import LEVELS, TIERS, Header

if TYPE_CHECKING:
    from eulerstack.ir.types import LayerIR, ModelIR
    from eulerstack.presets import Preset

SEE = "reference/cli.md#presets"
_size = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:e(\d{1,2}))?\s*([kmbt]?)", re.IGNORECASE)
FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Row:
    """A preset, what its header says, and, as soon as it is asked for, its model."""

    preset: Preset
    header: Header

    @cached_property
    def ir(self) -> ModelIR | None:
        """None for a preset that this installation can't read, which `validate` explains."""
        try:
            return read(str(self.preset.path))[1]
        except EulerStackError:
            return None

    @cached_property
    def params(self) -> tuple[int, int] | None:
        """(all parameters, those that one token touches), exact."""
        from eulerstack.compiler.cost import model_cost

        if self.ir is None:
            return None
        cost = model_cost(self.ir)
        return cost.total, cost.active

    @property
    def mixers(self) -> list[str]:
        """Each mixer once, in the order of the layers."""
        return [] if self.ir is None else list(dict.fromkeys(_mixers(self.ir.layers)))

    def data(self) -> dict[str, Any]:
        """For programs."""
        total, active = self.params or (None, None)
        model = None if self.ir is None else self.ir.model
        return {
            "name": self.preset.name,
            "summary": self.header.summary,
            "teaches": self.header.teaches,
            "source": self.header.source,
            "arxiv": self.header.arxiv,
            "years": self.header.years,
            "tier": self.header.tier,
            "level": self.header.level or None,
            "params": total,
            "active_params": active,
            "layers": None if self.ir is None else len(self.ir.layers),
            "d_model": model and model["d_model"],
            "max_seq_len": model and model["max_seq_len"],
            "mixers": self.mixers,
            "path": str(self.preset.path),
        }


def _mixers(layers: Iterable[LayerIR]) -> Iterable[str]:
    for layer in layers:
        yield layer.mixer.type
        yield from (held.type for held in layer.mixer.held.values())


def list_presets(
    tier: Annotated[
        int | None,
        typer.Option(
            "--tier",
            metavar="N",
            min=TIERS[0],
            max=TIERS[-1],
            help=_("Only presets of this tier: 1 validated, 2 recent, 3 experimental."),
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            metavar="LEVEL",
            help=_("Only presets of this level: beginner, intermediate, advanced, expert or llm."),
        ),
    ] = None,
    min_params: Annotated[
        str | None,
        typer.Option("--min-params", metavar="SIZE", help=_("Only presets with at least so many parameters: 1.5B.")),
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option("--max-params", metavar="SIZE", help=_("Only presets with at most so many parameters: 350M.")),
    ] = None,
    mixer: Annotated[
        list[str] | None,
        typer.Option(
            "--mixer",
            metavar="NAME",
            help=_("Only presets with this mixer; may be given several times, for all of them."),
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            "--paper",
            metavar="WORDS",
            help=_("Only presets after a paper: words of author, title, year or arXiv identifier."),
        ),
    ] = None,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Every preset that fits: name, exact parameter count, tier, level, mixers, and what it is."""
    from eulerstack.presets import presets

    wanted = _known_mixers(mixer or ())
    least, most = _parameters("--min-params", min_params), _parameters("--max-params", max_params)
    _check_level(level)
    rows = [
        row
        for row in (Row(preset, preset.header) for preset in presets())
        if tier in (None, row.header.tier)
        and level in (None, row.header.level)
        and (paper is None or row.header.names(paper))
        and (not wanted or wanted <= set(row.mixers))
        and (least is None or (row.params is not None and row.params[0] >= least))
        and (most is None or (row.params is not None and row.params[0] <= most))
    ]
    if as_json:
        say_json([row.data() for row in rows])
    elif not rows:
        say(_("No preset fits. All of them: {command}").format(command="eulerstack presets list"))
    elif is_terminal():
        _print_paragraphs(rows)
    else:
        _print_table(rows)


def _check_level(level: str | None) -> None:
    if level is not None and level not in LEVELS:
        what = msg("there is no level {level}", level=repr(level))
        raise UsageFault("--level", what, _nearest(level, LEVELS), SEE)


def _known_mixers(names: Sequence[str]) -> set[str]:
    from eulerstack.plugins.manager import get_registry

    known = get_registry().names("mixer")
    for name in names:
        if name not in known:
            what = msg("no installed plugin provides a mixer {name}", name=repr(name))
            raise UsageFault("--mixer", what, _nearest(name, known), SEE)
    return set(names)


def _nearest(text: str, known: Sequence[str]) -> Any:
    near = get_close_matches(text, known, n=1, cutoff=0.6)
    return msg("use {option}", option=near[0]) if near else msg("use one of: {names}", names=", ".join(known))


def _parameters(option: str, text: str | None) -> float | None:
    """The number that a size means: "1.5B", "350M", "2e9"."""
    if text is None:
        return None
    match = _size.fullmatch(text.strip())
    if match is None:
        what = msg("{text} is not a number of parameters", text=repr(text))
        raise UsageFault(option, what, msg("use {option}", option=f"{option} 1.5B"), SEE)
    return float(match[1]) * 10 ** int(match[2] or 0) * FACTORS[match[3].lower()]


def _print_paragraphs(rows: Sequence[Row]) -> None:
    """For a person: a line of facts for each preset and below it, indented, what it is."""
    width = min(columns(), 110)
    for row in rows:
        facts = " · ".join(filter(None, (_count(row), place(row.header), ", ".join(row.mixers))))
        name = row.preset.name
        for number, line in enumerate(wrap(f"{name}  {facts}", width)):
            say(f"    {line}" if number else line.replace(name, styled(name, "name"), 1))
        for line in wrap(in_language(row.header.summary), width - 4):
            say(f"    {line}".rstrip())


def _print_table(rows: Sequence[Row]) -> None:
    """For a pipe: a preset a line."""
    titles = [
        Column(_("Name")),
        Column(_("Params"), right=True),
        Column(_("Tier"), right=True),
        Column(_("Level")),
        Column(_("Mixers")),
        Column(_("Summary")),
    ]
    say_table(
        titles,
        [
            (
                row.preset.name,
                _count(row),
                "—" if row.header.tier is None else str(row.header.tier),
                row.header.level or "—",
                ", ".join(row.mixers) or "—",
                in_language(row.header.summary),
            )
            for row in rows
        ],
    )


def _count(row: Row) -> str:
    return "—" if row.params is None else f"~{short_count(row.params[0])}"


def show_preset(
    name: Annotated[str | None, spec_argument()] = None,
    preset: Annotated[str | None, preset_option()] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help=_("Print the file as it is, to begin a spec with."))] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints what the header teaches, a picture of the stack and its parameters; or the file; or data for programs."""
    reference = chosen(name, preset, "presets show")
    if as_yaml and as_json:
        raise UsageFault("--yaml", msg("it contradicts {option}", option="--json"),
                         msg("use one of: {names}", names="--yaml, --json"), SEE)  # fmt: skip
    if as_yaml:
        _print_file(reference)
        return
    from eulerstack.cli.describe import describe

    spec, ir = read(reference)
    data = describe(spec, ir)
    header = _header(reference)
    if as_json:
        words = ("summary", "teaches", "source", "arxiv", "years", "tier", "level")
        said = {word: getattr(header, word) for word in words}
        say_json({**{word: value for word, value in said.items() if value}, **data})
        return
    show(reference, header, data)


def _header(reference: str) -> Header:
    """That of a file; a compiled directory has none."""
    from eulerstack.presets import Preset, find

    return Header() if Path(reference).is_dir() else Preset(reference, find(reference)).header


def _print_file(reference: str) -> None:
    from eulerstack.presets import load

    text = load(reference).text
    if is_terminal():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "yaml", background_color="default", word_wrap=True))
        return
    sys.stdout.write(text)
