"""`eulerstack export-spec`: the spec of a compiled directory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import force_option
from eulerstack.cli.terminal import say, styled
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _


def export_spec(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help=_("A directory that compile or save_pretrained wrote."))
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help=_("Write the spec to a file instead."))
    ] = None,
    force: Annotated[bool, force_option()] = False,
) -> None:
    """Prints the spec, or writes it to a file and says how to compile the same weights."""
    if not directory:
        fix = msg("eulerstack export-spec {directory}", directory="./my_model")
        raise UsageFault("DIR", msg("a value is missing"), fix, "reference/cli.md#export-spec")
    from eulerstack.compiler.output import keep_input, replacing_file
    from eulerstack.exported import SPEC_FILE, export_spec

    spec = export_spec(directory)
    if output is None:
        sys.stdout.write(spec.text)
        return
    keep_input(output, directory, but=SPEC_FILE)
    with replacing_file(output, spec.text, force):
        pass
    say(_("Spec saved: {file}").format(file=styled(output, "name")))
    seed = _seed(Path(directory))
    if seed is not None:
        call = f"eulerstack compile {output} --output-dir {Path(directory).name}-again --seed {seed}"
        say(_("the same weights: {call}").format(call=call))


def _seed(directory: Path) -> int | None:
    """The seed of the directory's weights, where they are random and as compiled."""
    try:
        provenance: Any = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
        seed = provenance.get("seed")
    except (OSError, ValueError, AttributeError):
        return None
    return seed if isinstance(seed, int) else None
