"""`eulerstack import`: a HuggingFace checkpoint becomes a spec and, unless `--spec-only`, converted weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import force_option
from eulerstack.cli.terminal import say, styled, working
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _

SEE = "reference/cli.md#import"


def import_directory(
    source: Annotated[
        str | None, typer.Argument(metavar="HF_DIR", help=_("A directory with config.json and safetensors files."))
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", metavar="DIR", help=_("Where to write."))] = None,
    spec_only: Annotated[
        bool, typer.Option("--spec-only", help=_("Write the spec alone; read and convert no weights."))
    ] = False,
    force: Annotated[bool, force_option()] = False,
) -> None:
    """Writes `spec.yml`, and an EulerStack model directory around it unless only the spec is wanted."""
    sample = msg("eulerstack import {source} --output-dir {directory}", source=source or "HF_DIR",
                 directory=output_dir or "./imported")  # fmt: skip
    for path, value in (("HF_DIR", source), ("--output-dir", output_dir)):
        if not value:
            raise UsageFault(path, msg("a value is missing"), sample, SEE)
    assert source and output_dir
    from eulerstack.compiler.importing import import_checkpoint

    with working(_("Converting the checkpoint…")):
        written = import_checkpoint(Path(source), Path(output_dir), spec_only, force)
    say(_("Imported: {source}").format(source=styled(source, "name")))
    if spec_only:
        say(_("spec: {file}").format(file=written))
        return
    say(_("HF model saved: {directory}").format(directory=styled(output_dir, "name")))
    call = f"AutoModelForCausalLM.from_pretrained({output_dir!r}, trust_remote_code=True)"
    say(_("load: {call}").format(call=call))
