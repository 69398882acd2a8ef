"""`eulerstack plugins new`: a plugin package that works, to be changed into the one that is wanted."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.terminal import columns, say, styled, wrap
from eulerstack.errors import Diagnostic, ValidationError, msg
from eulerstack.i18n import gettext as _
from eulerstack.scaffold import KINDS, SEE, files_of, parsed


def new_plugin(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=_("Your name and the word's, as in acme.gated_average."))
    ] = None,
    kind: Annotated[
        str,
        typer.Option("--kind", "-k", metavar="KIND", help=_("mixer, ffn, integrator, memory, residual or namespace.")),
    ] = "",
    output_dir: Annotated[
        str | None,
        typer.Option("--output-dir", "-o", metavar="DIR", help=_("Where to write it (default: its name, here).")),
    ] = None,
) -> None:
    """Writes the package, and says what to type next; a directory that holds anything is left alone."""
    from eulerstack.compiler.output import replacing_directory

    if name is None:
        fix = msg("eulerstack plugins new acme.gated_average --kind mixer")
        raise UsageFault("NAME", msg("a value is missing"), fix, "reference/cli.md#plugins")
    if kind not in KINDS:
        nearest = get_close_matches(kind, KINDS, n=1)
        what = msg("there is no kind of plugin called {kind}", kind=repr(kind)) if kind else msg("a value is missing")
        fix = msg("use one of: {names}", names=", ".join([*nearest, *(each for each in KINDS if each not in nearest)]))
        raise UsageFault("--kind", what, fix, "reference/cli.md#plugins")
    names = parsed(name)
    folder = Path(names.distribution if output_dir is None else output_dir)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValidationError([
            Diagnostic(ValidationError.category, msg("the directory is not empty"),
                       msg("Name another one by --output-dir"), SEE, str(folder))
        ])  # fmt: skip
    files = files_of(kind, names)
    with replacing_directory(folder, force=False) as place:
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    for line in wrap(
        _("Written: {package}, with the {kind} {name}").format(package=names.distribution, kind=kind, name=names.full),
        min(columns(), 110),
    ):
        say(line)
    for path in files:
        say(f"  {styled(str(folder / path), 'name')}")
    say()
    say(_("Next:"))
    for command in (
        f"cd {folder}",
        'python -m pip install -e ".[test]"',
        "python -m pytest",
        f"eulerstack compile --preset {names.preset} --output-dir ./model",
    ):
        say(f"  {command}")
