"""Commands that are started by `python -m` and no part of `eulerstack`, with its manners: help, languages, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer
from typer.main import get_command

from eulerstack.cli import main
from eulerstack.cli.help import Command


def run_program(
    name: str, command: Callable[..., None], summary: Callable[[], str], argv: Sequence[str] | None = None
) -> int:
    """Runs `command` with `argv`, or this process's arguments, and returns its exit code.

    `name` is what starts it, as its help shows it; `summary` gives the sentence about it in the active language.
    """

    def program(arguments: Sequence[str]) -> int:
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(cls=Command, help=summary(), context_settings={"help_option_names": ["--help", "-h"]})(command)
        parsed = get_command(app)
        try:
            with parsed.make_context(name, list(arguments)) as context:
                parsed.invoke(context)
        except typer.Exit as end:
            return end.exit_code
        return 0

    return main(argv, program)
