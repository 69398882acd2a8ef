"""`eulerstack compile`: a JSON runtime configuration, or a HuggingFace model directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eulerstack.cli.failures import DEFAULT_MAX_ERRORS, UsageFault
from eulerstack.cli.options import (
    chosen,
    force_option,
    max_errors_option,
    preset_option,
    read,
    settings,
    spec_argument,
)
from eulerstack.cli.terminal import long_count, say, say_json, styled, working
from eulerstack.errors import CompileError, Diagnostic, Message, msg
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
        str | None, typer.Option("--output-dir", metavar="DIR", help=_("Write a HuggingFace model directory."))
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help=_("Write the runtime configuration as JSON."))
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", "--dry-run", help=_("Print the runtime configuration; write nothing.")),
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
    force: Annotated[bool, force_option()] = False,
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
    source, ir = read(reference)
    if validate_only:
        say(_("Valid: {file}").format(file=styled(source.file, "name")))
        return
    if print_config:
        from eulerstack.compiler.compile import compile_ir

        say_json(compile_ir(ir))
        return
    for path in (output, output_dir):
        if path is not None:
            _refuse_to_replace(path, source, force)
    if output is None:
        _write_directory(source, ir, str(output_dir), seed, force)
        return
    if output_dir is not None and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(output_dir)):
        fix = msg("name a file outside {directory}", directory=output_dir)
        raise _refusal(output, msg("it lies in the model directory, which is written as a whole"), fix)
    with writing_text(Path(output), _config_text(ir)):
        if output_dir is not None:
            _write_directory(source, ir, output_dir, seed, force)
    say(_("Configuration saved: {file}").format(file=styled(output, "name")))


def _config_text(ir: ModelIR) -> str:
    from eulerstack.compiler.compile import compile_ir

    return json.dumps(compile_ir(ir), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_directory(source: Spec, ir: ModelIR, output_dir: str, seed: int | None, force: bool) -> None:
    from eulerstack.compiler.compile import compile_to_directory
    from eulerstack.compiler.cost import count_parameters

    with working(_("Building the model…")):
        compile_to_directory(
            ir,
            output_dir,
            seed=ir.training_hints["seed"] if seed is None else seed,
            force=force,
            spec_text=source.text,
            spec_dir=Path(source.file).parent,
        )
    say(_("HF model saved: {directory}").format(directory=styled(output_dir, "name")))
    say("model_type: eulerstack")
    say(_("params: {params}").format(params=long_count(count_parameters(ir))))
    say(_("layers: {layers}").format(layers=len(ir.layers)))
    call = f"AutoModelForCausalLM.from_pretrained({output_dir!r}, trust_remote_code=True)"
    say(_("load: {call}").format(call=call))


def _refuse_to_replace(shown: str, source: Spec, force: bool) -> None:
    """Raises a CompileError for a file or a directory with content, unless `force`; for the spec's own place always."""
    path = Path(shown)
    if source.file and Path(os.path.realpath(source.file)).is_relative_to(os.path.realpath(path)):
        raise _refusal(shown, msg("the spec itself is there"), msg("choose another path"))
    replace_it = msg("choose another path, or add --force to replace it")
    if force:
        return
    if path.is_dir():
        if any(path.iterdir()):
            raise _refusal(shown, msg("the directory is not empty"), replace_it)
    elif path.exists() or path.is_symlink():
        raise _refusal(shown, msg("there is a file of this name already"), replace_it)


@contextmanager
def writing_text(path: Path, text: str) -> Iterator[None]:
    """Writes a file beside its place, and moves it there when the block ends well.

    Raises a CompileError that says what stands in the way.
    """
    shown, path = path, Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise _refusal(
            str(shown), msg("it is not a regular file"), msg("name a file, such as {path}", path="config.json")
        )
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # mkstemp makes files for their owner alone; a written file has the permissions that open() would give it.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        yield
        os.replace(temporary, path)
    except BaseException as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _refusal(
                str(shown),
                msg("it can't be written: {error}", error=error.strerror or str(error)),
                msg("check that the path exists, is writable and has room"),
            ) from error
        raise


def _refusal(path: str, what: Message, fix: Message) -> CompileError:
    return CompileError([Diagnostic(CompileError.category, what, fix, SEE, path)])
