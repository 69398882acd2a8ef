"""Runs one command line, and makes an exit code and three lines of whatever goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from eulerstack.cli import failures
from eulerstack.cli.strangers import as_asked, before_command, culprit
from eulerstack.errors import CompileError, Diagnostic, EulerStackError, msg
from eulerstack.i18n import LANGUAGES, VARIABLE, activate, parse_language

TRACEBACK_VARIABLE = "EULERSTACK_TRACEBACK"
BUILDERS = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub")
TRAINERS = ("accelerate", "datasets", "matplotlib")
Program = Callable[[Sequence[str]], int]


def run_command(argv: Sequence[str] | None = None, program: Program | None = None) -> int:
    """Runs one command and returns its exit code.

    `program` is what runs the arguments, where it isn't the command `eulerstack`: a command that is started by
    `python -m`, with `--lang` among its own options (`eulerstack.cli.programs`).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        # A stream that was closed before the start is None.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that lacks a character shows its escape; it does not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        with as_asked(arguments), noting_interrupts() as interrupts:
            code = _guarded(arguments, interrupts, program)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes standard output once more at exit; give it a place where that can't fail.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return failures.PIPE_CLOSED
    finally:
        activate(None)


@contextmanager
def noting_interrupts() -> Iterator[list[int]]:
    """A list that an interrupt from the keyboard is noted in before it is raised.

    A library that is interrupted while it imports its parts may raise an error of its own instead; torch aborts the
    process, so the interrupt waits until torch is there.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if not _is_being_imported("torch"):
            raise KeyboardInterrupt
        again = threading.Timer(0.05, signal.raise_signal, (number,))
        again.daemon = True
        again.start()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _guarded(arguments: list[str], interrupts: list[int], program: Program | None) -> int:
    try:
        from eulerstack.cli.options import settings

        settings.max_errors = failures.DEFAULT_MAX_ERRORS
        activate(_language(arguments, anywhere=program is not None))
        if program is not None:
            return program(arguments)
        from eulerstack.cli.application import run

        return run(arguments)
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    except BrokenPipeError:
        raise
    # Nothing of ours calls sys.exit below the parser; a plugin may, and must not end the command in silence.
    except (Exception, SystemExit) as error:
        if interrupts:
            return failures.INTERRUPTED
        if isinstance(error, EulerStackError):
            failures.report(error.diagnostics, settings.max_errors)
            return failures.FAILED
        diagnostic = failures.as_diagnostic(error)
        if diagnostic is not None:
            failures.report([diagnostic])
            return failures.MISUSED
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        failures.report([_unexpected(error)])
        return failures.FAILED


def _language(arguments: Sequence[str], anywhere: bool = False) -> str | None:
    """The language to use, looked for before the parser exists because help is translated when that is built.

    It stands before the command, or `anywhere` where there is only one.
    """
    asked, source = os.environ.get(VARIABLE, ""), VARIABLE
    for index, argument in enumerate(arguments if anywhere else before_command(arguments)):
        if argument == "--lang":
            asked, source = ([*arguments[index + 1 :], ""])[0], "--lang"
            break
        if argument.startswith("--lang="):
            asked, source = argument.partition("=")[2], "--lang"
            break
    if not asked and source == VARIABLE:
        return None
    language = parse_language(asked)
    if language is None:
        raise failures.UsageFault(
            source,
            msg("there is no language {language}", language=repr(asked)),
            msg("use one of: {names}", names=", ".join(LANGUAGES)),
            "reference/cli.md#languages",
        )
    return language


def _unexpected(error: Exception | SystemExit) -> Diagnostic:
    from eulerstack.plugins.faults import reason_of

    text = reason_of(error, longest=500)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in BUILDERS:
        return Diagnostic(
            CompileError.category,
            msg("building a model needs {package}, which is not installed", package=error.name),
            msg('pip install "eulerstack-core[hf]"'),
            "reference/cli.md#compile",
        )
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in TRAINERS:
        return Diagnostic(
            CompileError.category,
            msg("training needs {package}, which is not installed", package=error.name),
            msg('pip install "eulerstack-core[hf,train]"'),
            "reference/sanity.md#installing",
        )
    if isinstance(error, OSError):
        return Diagnostic(
            CompileError.category,
            msg("the system refused: {error}", error=text),
            msg("check that the path exists, is writable and has room"),
            "reference/cli.md#output",
        )
    guilty = culprit(error)
    if guilty is not None:
        return Diagnostic(
            CompileError.category,
            msg("the plugin {plugin} of {package} {version} failed: {error}", plugin=guilty.name,
                package=guilty.package, version=guilty.version, error=text),
            msg("pip install --upgrade {package}, or set {variable}=1 to see where it happened",
                package=guilty.package, variable=TRACEBACK_VARIABLE),
            "reference/errors.md#plugin-fault",
        )  # fmt: skip
    return Diagnostic(
        CompileError.category,
        msg("this is a defect of EulerStack or of a plugin: {error}", error=text),
        msg("set {variable}=1 to see where it happened, and report it", variable=TRACEBACK_VARIABLE),
        "reference/cli.md#defects",
    )
