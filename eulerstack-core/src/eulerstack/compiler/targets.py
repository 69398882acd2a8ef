"""The back end that a spec names in `compatibility.compile_target`, and how it is called.

The core makes an empty directory beside the output, has the target fill it, and renames it at the end; so a target
can't leave half an artifact behind, whatever happens to it. The core's own HuggingFace target is called in the same
way. Torch-free, but for what a target imports.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from eulerstack.compiler.extensions import compiled_extensions
from eulerstack.compiler.output import refusal, replacing_directory
from eulerstack.errors import CompileError, Diagnostic, EulerStackError, Message, msg
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.faults import PLUGIN_ERRORS, reason_of
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import Target

HUGGINGFACE = "huggingface"
SEE = "writing-a-plugin.md#a-target"


def target_of(ir: ModelIR) -> Target:
    """The target that `ir` is compiled for. Errors: CompileError when no installed plugin provides it."""
    name = ir.compatibility["compile_target"]
    for target in get_registry().targets():
        if target.name == name:
            return target
    raise CompileError(
        [
            Diagnostic(
                CompileError.category,
                msg("no installed plugin provides the {kind} {name}", kind="compile_target", name=name),
                msg("install the package that provides {name}; eulerstack plugins list shows what is there", name=name),
                "reference/errors.md#missing-primitive",
                "compatibility.compile_target",
            )
        ]
    )


def write_target(
    ir: ModelIR, output_dir: Path, *, seed: int, spec_text: str, spec_dir: Path | None, force: bool, **own: Any
) -> Path:
    """Has the spec's target fill a new directory, which then takes the place of `output_dir`; returns that.

    `own` are words of the target huggingface alone. Errors: CompileError when the output may not or can't be written,
    when the target refuses, fails, or writes nothing.
    """
    target = target_of(ir)
    with replacing_directory(output_dir, force) as folder:
        compiled_extensions(ir)
        function = load_target(target)
        try:
            function(ir, folder, seed=seed, spec_text=spec_text, spec_dir=spec_dir, **own)
        except EulerStackError:
            raise
        # The code is a plugin's and may raise anything; the user needs the plugin's name.
        except PLUGIN_ERRORS as error:
            if get_registry().is_own(target) or _concerns(error, folder):
                raise
            get_registry().keep_traceback(target, error)
            raise _fault(target, _reason(error)) from error
        if not folder.is_dir() or not any(folder.iterdir()):
            raise _fault(target, msg("it wrote nothing"))
    return output_dir


def load_target(target: Target) -> Callable[..., Any]:
    """The function that a target names. Errors: CompileError that names the package when there is none."""
    module, _, name = target.function.partition(":")
    try:
        function = getattr(import_module(module), name)
    # Importing a plugin's code may raise anything.
    except PLUGIN_ERRORS as error:
        if get_registry().is_own(target):
            raise
        get_registry().keep_traceback(target, error)
        raise _fault(target, _reason(error)) from error
    if not callable(function):
        raise _fault(target, msg("{name} is not a function", name=target.function))
    return function


def refuse_other_target(ir: ModelIR, option: str) -> None:
    """Raises a CompileError where the spec has another target than huggingface, which alone knows `option`."""
    name = target_of(ir).name
    if name != HUGGINGFACE:
        raise refusal(
            option,
            msg("this belongs to the target huggingface, but compile_target is {name}", name=name),
            msg("Use --output-dir without it, or type compile_target: huggingface"),
        )


def _concerns(error: BaseException, folder: Path) -> bool:
    """Whether the file system refused to write `folder`, which is no fault of the target's."""
    if not isinstance(error, OSError):
        return False
    return not isinstance(error.filename, (str, os.PathLike)) or Path(error.filename).is_relative_to(folder)


def _reason(error: BaseException) -> Message:
    return Message("{error}", (("error", reason_of(error)),))


def _fault(target: Target, reason: Message) -> CompileError:
    package, version = get_registry().provider(target)
    return CompileError(
        [
            Diagnostic(
                CompileError.category,
                msg("the target {name} from {package} {version} failed: {error}", name=target.name, package=package,
                    version=version, error=reason),
                msg("Install another version of {package}, or use another compile_target", package=package),
                SEE,
                "compatibility.compile_target",
            )
        ]
    )  # fmt: skip
