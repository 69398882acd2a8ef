"""`eulerstack compile`: a JSON runtime configuration, or a directory that the spec's target fills."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import DEFAULT_MAX_ERRORS, UsageFault
from eulerstack.cli.options import (
    chosen,
    force_option,
    max_errors_option,
    preset_option,
    read,
    set_option,
    settings,
    spec_argument,
)
from eulerstack.cli.terminal import long_count, say, say_json, styled, working
from eulerstack.compiler.output import check_directory, check_file, refusal, replacing_file
from eulerstack.errors import msg
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR

SEE = "reference/cli.md#compile"
LARGEST_SEED = 2**63 - 1


def compile_spec(
    spec: Annotated[str | None, spec_argument()] = None,
    preset: Annotated[str | None, preset_option()] = None,
    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            help=_(
                "Write what the spec's compile_target makes, a HuggingFace model directory unless it says otherwise."
            ),
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=_("Write the runtime configuration, config.json of a HuggingFace model, to a file."),
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            "--dry-run",
            help=_("Print the runtime configuration, config.json of a HuggingFace model; write nothing."),
        ),
    ] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help=_("Check that the spec compiles; build and write nothing."))
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            max=LARGEST_SEED,
            help=_("Seed of the random weights (default: the spec's training_hints.seed)."),
        ),
    ] = None,
    shard_size: Annotated[
        str | None,
        typer.Option(
            "--shard-size",
            metavar="SIZE",
            help=_("Split the weights into files of at most this size, as in 2GB or 500MB (default 5GB)."),
        ),
    ] = None,
    force: Annotated[bool, force_option()] = False,
    assignments: Annotated[list[str] | None, set_option()] = None,
    max_errors: Annotated[int, max_errors_option()] = DEFAULT_MAX_ERRORS,
) -> None:
    """Writes what was asked for, or nothing at all."""
    settings.max_errors = max_errors
    reference = chosen(spec, preset, "compile")
    if not (output_dir or output or print_config or validate_only):
        raise UsageFault(
            "--output-dir",
            msg("nothing to write was asked for"),
            msg("eulerstack compile --preset {spec} --output-dir {directory}", spec=reference, directory="./my_model"),
            SEE,
        )
    if output == "-":
        raise UsageFault(
            "--output",
            msg("- is no file; the configuration goes to standard output by an option of its own"),
            msg("use --print-config, or {path} for a file of that name", path="./-"),
            SEE,
        )
    shard_bytes = None if shard_size is None else _bytes(shard_size)
    source, ir = read(reference, assignments)
    if shard_bytes is not None:
        from eulerstack.compiler.targets import refuse_other_target

        refuse_other_target(ir, "--shard-size")
    if validate_only:
        _check_it_compiles(ir)
        say(_("Valid: {file}").format(file=styled(source.file, "name")))
        return
    if print_config:
        say_json(_config(ir, "--print-config"))
        return
    for path, check in ((output, check_file), (output_dir, check_directory)):
        if path is not None:
            _keep_the_spec(path, source)
            check(path, force)
    if output is None:
        _write_directory(source, ir, str(output_dir), seed, shard_bytes, force)
        return
    if output_dir is not None and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(output_dir)):
        fix = msg("name a file outside {directory}", directory=output_dir)
        raise refusal(output, msg("it lies in the model directory, which is written as a whole"), fix)
    text = json.dumps(_config(ir, "--output"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing_file(output, text, force):
        if output_dir is not None:
            _write_directory(source, ir, output_dir, seed, shard_bytes, force)
    say(_("Configuration saved: {file}").format(file=styled(output, "name")))


def _bytes(size: str) -> int:
    """The bytes of "2GB", "500 MB" or "1000000"; raises a UsageFault for anything else."""
    match = re.fullmatch(r"\s*(\d{1,12})\s*([kMGT]?)B?\s*", size, re.IGNORECASE)
    number = 0 if match is None else int(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " ")
    if number < 1:
        fix = msg("use {option}", option="--shard-size 2GB")
        raise UsageFault("--shard-size", msg("a size is a number and kB, MB, GB or TB"), fix, SEE)
    return number


def _check_it_compiles(ir: ModelIR) -> None:
    """Makes what a compile needs and torch does not: the target, the configuration, the model's source."""
    from eulerstack.compiler.compile import compile_ir
    from eulerstack.compiler.targets import HUGGINGFACE, load_target, target_of
    from eulerstack.compiler.writer import model_source

    compile_ir(ir)
    target = target_of(ir)
    if target.name == HUGGINGFACE:
        model_source(ir)
    else:
        load_target(target)


def _config(ir: ModelIR, option: str) -> dict[str, Any]:
    from eulerstack.compiler.compile import compile_ir
    from eulerstack.compiler.targets import refuse_other_target

    refuse_other_target(ir, option)
    return compile_ir(ir)


def _write_directory(
    source: Spec, ir: ModelIR, output_dir: str, seed: int | None, shard_bytes: int | None, force: bool
) -> None:
    from eulerstack.compiler.compile import compile_to_directory
    from eulerstack.compiler.cost import count_parameters
    from eulerstack.compiler.targets import HUGGINGFACE

    with working(_("Building the model…")):
        compile_to_directory(
            ir,
            output_dir,
            seed=ir.training_hints["seed"] if seed is None else seed,
            force=force,
            spec_text=None if source.assigned else source.text,
            spec_dir=Path(source.file).parent,
            max_shard_bytes=shard_bytes,
        )
    target = ir.compatibility["compile_target"]
    if target == HUGGINGFACE:
        say(_("HF model saved: {directory}").format(directory=styled(output_dir, "name")))
        say("model_type: eulerstack")
    else:
        say(_("{target} saved: {directory}").format(target=target, directory=styled(output_dir, "name")))
    say(_("params: {params}").format(params=long_count(count_parameters(ir))))
    say(_("layers: {layers}").format(layers=len(ir.layers)))
    if target == HUGGINGFACE:
        call = f"AutoModelForCausalLM.from_pretrained({output_dir!r}, trust_remote_code=True)"
        say(_("load: {call}").format(call=call))


def _keep_the_spec(shown: str, source: Spec) -> None:
    """Raises a CompileError for an output that would replace the spec itself."""
    if source.file and Path(os.path.realpath(source.file)).is_relative_to(os.path.realpath(shown)):
        raise refusal(shown, msg("the spec itself is there"), msg("choose another path"))
