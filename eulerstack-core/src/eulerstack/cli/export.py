"""`eulerstack export`: a model directory in the form of a HuggingFace family, where one can say all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import force_option
from eulerstack.cli.terminal import say, styled, working
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _

SEE = "reference/cli.md#export"


def export_directory(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help=_("A directory that compile, import or save_pretrained wrote."))
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", metavar="DIR", help=_("Where to write."))] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="MODEL_TYPE",
            help=_("The family, as config.json's model_type names it; by default the first that can say all."),
        ),
    ] = None,
    force: Annotated[bool, force_option()] = False,
) -> None:
    """Writes config.json and weights as the family's class in transformers reads them."""
    sample = msg("eulerstack export {source} --output-dir {directory}", source=directory or "./my_model",
                 directory=output_dir or "./exported")  # fmt: skip
    for path, value in (("DIR", directory), ("--output-dir", output_dir)):
        if not value:
            raise UsageFault(path, msg("a value is missing"), sample, SEE)
    assert directory and output_dir
    from eulerstack.compiler.checkpoints import read_config
    from eulerstack.compiler.importing import export_checkpoint

    with working(_("Converting the checkpoint…")):
        written = export_checkpoint(Path(directory), Path(output_dir), family, force)
    say(_("HF model saved: {directory}").format(directory=styled(output_dir, "name")))
    name = read_config(written)[0]["architectures"][0]
    call = f"{name}.from_pretrained({output_dir!r})"
    say(_("load: {call}").format(call=call))
