"""`eulerstack presets list` and `presets show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from eulerstack.cli.options import chosen, json_option, preset_option, read, spec_argument
from eulerstack.cli.terminal import Column, is_terminal, say_json, say_table, short_count
from eulerstack.errors import EulerStackError
from eulerstack.i18n import gettext as _


def list_presets(as_json: Annotated[bool, json_option()] = False) -> None:
    """A table of every preset: its name, its exact parameter count and the first line of its header."""
    from eulerstack.presets import presets

    rows = [(preset, _parameters(preset.path)) for preset in presets()]
    if as_json:
        say_json(
            [
                {"name": preset.name, "params": params, "summary": preset.summary, "path": str(preset.path)}
                for preset, params in rows
            ]
        )
        return
    say_table(
        [Column(_("Name")), Column(_("Params"), right=True), Column(_("Summary"), wraps=True)],
        [
            (preset.name, "—" if params is None else f"~{short_count(params)}", preset.summary)
            for preset, params in rows
        ],
    )


def _parameters(path: Path) -> int | None:
    """The exact count; None for a preset that this installation can't read, which `validate` explains."""
    from eulerstack.compiler.cost import count_parameters

    try:
        return count_parameters(read(str(path))[1])
    except EulerStackError:
        return None


def show_preset(
    name: Annotated[str | None, spec_argument()] = None,
    preset: Annotated[str | None, preset_option()] = None,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints the file as it is, or a summary of the model for programs."""
    reference = chosen(name, preset, "presets show")
    if as_json:
        from eulerstack.cli.describe import describe

        say_json(describe(*read(reference)))
        return
    from eulerstack.presets import load

    text = load(reference).text
    if is_terminal():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "yaml", background_color="default", word_wrap=True))
        return
    sys.stdout.write(text)
