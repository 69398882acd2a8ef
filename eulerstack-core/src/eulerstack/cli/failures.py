"""Failures as three lines each on standard error, and nothing else there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from eulerstack.cli.terminal import styled, visible
from eulerstack.errors import Diagnostic, Message, msg

DEFAULT_MAX_ERRORS = 20
FAILED = 1
MISUSED = 2
DIFFERENT = 3
INTERRUPTED = 130
PIPE_CLOSED = 141
# Commands that are no part of `eulerstack`, and where they are described.
PROGRAMS = {
    "python -m eulerstack.data.prepare": "reference/sanity.md#preparing-data",
    "python -m eulerstack.sanity": "reference/sanity.md#a-short-training-run",
}


class UsageFault(Exception):
    """The command line itself is wrong; ends with exit code 2."""

    def __init__(self, path: str, what: Message, fix: Message, see: str = "reference/cli.md#usage"):
        self.diagnostic = Diagnostic("ValidationError", what, fix, see, path)
        super().__init__(self.diagnostic)


def report(diagnostics: Iterable[Diagnostic], limit: int = DEFAULT_MAX_ERRORS) -> None:
    """Prints the first `limit` diagnostics (all of them when it is 0)."""
    chosen = list(diagnostics)
    for diagnostic in chosen[: limit or None]:
        head, fix, see = (visible(line) for line in diagnostic.lines())
        category, _, rest = head.partition(":")
        print(f"{styled(category, 'error', sys.stderr)}:{rest}", fix, see, sep="\n", file=sys.stderr)


def as_diagnostic(error: BaseException) -> Diagnostic | None:
    """The diagnostic for an exception of the command-line parser; None for any other exception."""
    if isinstance(error, UsageFault):
        return error.diagnostic
    # Typer carries its own copy of click since 0.21, and uses click itself before: the class names are the same.
    names = {cls.__name__ for cls in type(error).__mro__}
    if "UsageError" not in names:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "eulerstack"
    see = page_of(command)
    help_fix = msg("{command} --help", command=command)
    if "NoSuchOption" in names:
        option: str = error.option_name  # type: ignore[attr-defined]
        return Diagnostic("ValidationError", msg("there is no such option"), _near(option, context), see, option)
    if "BadOptionUsage" in names:
        option = error.option_name  # type: ignore[attr-defined]
        what, fix = msg("the option needs a value"), msg("{option} VALUE", option=option)
        if "not take a value" in str(error):
            what, fix = msg("the option takes no value"), Message("{option}", (("option", option),))
        return Diagnostic("ValidationError", what, fix, see, option)
    parameter = getattr(error, "param", None)
    if "MissingParameter" in names:
        return Diagnostic("ValidationError", msg("a value is missing"), help_fix, see, _label(parameter))
    if "BadParameter" in names:
        return Diagnostic("ValidationError", _expected(parameter), help_fix, see, _label(parameter))
    extra = str(getattr(error, "message", error)).rpartition("(")[2].rstrip(").")
    return Diagnostic("ValidationError", msg("there is no place for this argument"), help_fix, see, extra or command)


def whole_number_fault(parameter: Any, context: Any) -> UsageFault:
    """The fault for a value that is not a whole number in the parameter's bounds."""
    command = context.command_path
    help_fix = msg("{command} --help", command=command)
    return UsageFault(_label(parameter), _expected(parameter), help_fix, page_of(command))


def page_of(command: str) -> str:
    """The section of the documentation about a command, by its path as its help shows it."""
    if command in PROGRAMS:
        return PROGRAMS[command]
    return f"reference/cli.md#{command.split()[1] if ' ' in command else 'usage'}"


def _label(parameter: Any) -> str:
    if parameter is None:
        return ""
    names: Sequence[str] = parameter.opts
    if getattr(parameter, "param_type_name", "") == "argument":
        return parameter.metavar or names[0].upper()
    return max(names, key=len)


def _expected(parameter: Any) -> Message:
    # The bounds are the parameter's own in newer versions of typer, its type's in older ones.
    holders = (parameter, getattr(parameter, "type", None))
    least, high = (
        next((bound for bound in (getattr(each, end, None) for each in holders) if bound is not None), None)
        for end in ("min", "max")
    )
    if least is not None and high is not None:
        return msg("the value must be a whole number from {low} to {high}", low=least, high=high)
    if least is not None:
        return msg("the value must be a whole number, at least {low}", low=least)
    return msg("the value is of the wrong kind")


def _near(option: str, context: Any) -> Message:
    if context is None:
        return msg("eulerstack --help")
    command = context.command_path
    known = [name for each in context.command.get_params(context) for name in (*each.opts, *each.secondary_opts)]
    if option in ("--lang", "--no-plugins", "--version") and context.parent is not None:
        value = " en" if option == "--lang" else ""
        rest = "" if option == "--version" else f" {command.split(maxsplit=1)[1]}"
        sample = f"eulerstack {option}{value}{rest}"
        return msg("put it before the command: {sample}", sample=sample)
    nearest = get_close_matches(option, known, n=1, cutoff=0.6)
    if nearest:
        return msg("use {option}", option=nearest[0])
    return msg("{command} --help", command=command)


def suggest_command(name: str, known: Iterable[str], prefix: str) -> UsageFault:
    """The fault for a command that does not exist."""
    names = list(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    fix = (
        msg("use {command}", command=f"{prefix} {nearest[0]}")
        if nearest
        else msg("use one of: {names}", names=", ".join(names))
    )
    return UsageFault(name, msg("there is no such command"), fix)
