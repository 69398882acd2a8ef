"""Help pages in the active language, laid out by cells; shared by every command and group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup

from eulerstack.cli.failures import suggest_command
from eulerstack.cli.terminal import columns, in_pairs, styled, wrap
from eulerstack.cli.values import convert_plainly
from eulerstack.i18n import gettext as _


class Translated:
    """What commands and groups have in common: translated help, and values converted without pydantic."""

    def get_help(self, ctx: Any) -> str:
        """The page, with styles where it goes to a terminal."""
        return "\n".join(help_lines(self, ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` included."""
        return [convert_plainly(each) for each in super().get_params(ctx)]  # type: ignore[misc]


class Command(Translated, TyperCommand):
    """A command."""


class Group(Translated, TyperGroup):
    """A group of commands, which suggests the nearest command for an unknown one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begin with; raises a UsageFault with the nearest name for an unknown one."""
        if self.get_command(ctx, args[0]) is None:
            raise suggest_command(args[0], self.list_commands(ctx), ctx.command_path)
        return super().resolve_command(ctx, args)


def help_lines(command: Any, ctx: Any) -> Iterator[str]:
    """Usage, purpose, arguments, options and commands of one command."""
    parameters = [each for each in command.get_params(ctx) if not getattr(each, "hidden", False)]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    subcommands = [command.get_command(ctx, name) for name in getattr(command, "commands", {})]
    pieces = [ctx.command_path, "[OPTIONS]", *(f"[{_metavar(each)}]" for each in arguments)]
    if subcommands:
        pieces.append("COMMAND [ARGS]…")
    yield " ".join([styled(_("Usage:"), "bold"), *pieces])
    yield ""
    yield from ("  " + line for line in wrap(command.help or "", min(columns(), 110) - 2))
    for title, pairs in (
        (_("Arguments:"), [(_metavar(each), each.help or "") for each in arguments]),
        (_("Options:"), [(_option_label(each), _option_help(each)) for each in options]),
        (_("Commands:"), [(each.name, each.short_help or each.help or "") for each in subcommands]),
    ):
        if pairs:
            yield ""
            yield styled(title, "bold")
            yield from in_pairs(pairs)
    if command.epilog:
        yield ""
        yield from wrap(command.epilog, min(columns(), 110))


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _option_label(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    return f"{names} {option.metavar}" if option.metavar else names


def _option_help(option: Any) -> str:
    if "--help" in option.opts:
        return _("Show this page and exit.")
    return option.help or ""
