"""Parameters that several commands share, and the way from what was typed to a checked model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from eulerstack.cli.failures import DEFAULT_MAX_ERRORS, UsageFault
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR


@dataclass
class Settings:
    """What a command asked of the code that prints failures."""

    max_errors: int = DEFAULT_MAX_ERRORS


settings = Settings()


def spec_argument() -> Any:
    """The spec as a positional argument."""
    return typer.Argument(
        metavar="SPEC", help=_("A spec file, a preset's name, or a compiled directory; the same as --preset.")
    )


def preset_option() -> Any:
    """`--preset/-p`."""
    return typer.Option(
        "--preset", "-p", metavar="SPEC", help=_("A spec file, a preset's name, or a compiled directory.")
    )


def json_option() -> Any:
    """`--json`."""
    return typer.Option("--json", help=_("Print JSON for programs."))


def force_option() -> Any:
    """`--force`."""
    return typer.Option("--force", help=_("Replace what is already there."))


def set_option() -> Any:
    """`--set`."""
    return typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help=_("Change the spec before it is read, as in model.d_model=512; may be given several times."),
    )


def lang_option() -> Any:
    """`--lang`, of a command that has nothing before it; the language is active before it is parsed."""
    return typer.Option("--lang", metavar="LANG", help=_("Language of messages: ko, en, zh, ja or es (default ko)."))


def max_errors_option() -> Any:
    """`--max-errors`."""
    return typer.Option(
        "--max-errors", metavar="N", min=0, help=_("Show at most N problems (default 20; 0 shows them all).")
    )


def chosen(argument: str | None, option: str | None, command: str) -> str:
    """The spec named by the argument or by `--preset`; raises a UsageFault unless it is exactly one of them."""
    see = f"reference/cli.md#{command.split()[0]}"
    if argument is not None and option is not None:
        raise UsageFault(
            "--preset", msg("the spec is given twice"), msg("eulerstack {command} --preset {spec}",
            command=command, spec=option), see,
        )  # fmt: skip
    reference = option if option is not None else argument
    if not reference:
        raise UsageFault(
            "--preset", msg("a value is missing"), msg("eulerstack {command} --preset {spec}", command=command,
            spec="my_model.yml"), see,
        )  # fmt: skip
    return reference


def read(reference: str, assignments: Sequence[str] | None = None) -> tuple[Spec, ModelIR]:
    """The spec that `reference` names (a file, a preset, a compiled directory) and its complete IR.

    `assignments` are the values of `--set`. Raises the diagnostics of the first stage that fails.
    """
    from eulerstack.ir.normalizer import normalize_to_ir
    from eulerstack.presets import load

    if os.path.isdir(reference):
        folder = Path(reference)
        from eulerstack.exported import export_spec, is_compiled

        if is_compiled(folder):
            spec = export_spec(folder, assignments or ())
            return spec, normalize_to_ir(spec)
    spec = load(reference, assignments or ())
    return spec, normalize_to_ir(spec)
