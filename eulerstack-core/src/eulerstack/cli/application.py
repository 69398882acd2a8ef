"""The tree of commands, built in the active language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from eulerstack.cli.help import Command, Group
from eulerstack.cli.terminal import say
from eulerstack.i18n import gettext as _

PROGRAM = "eulerstack"


def run(arguments: Sequence[str]) -> int:
    """Runs the command that `arguments` say and returns its exit code; raises the parser's and the command's errors."""
    command = get_command(build())
    try:
        with command.make_context(PROGRAM, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def root(
    context: typer.Context,
    lang: Annotated[
        str | None,
        typer.Option("--lang", metavar="LANG", help=_("Language of messages: ko, en, zh, ja or es (default ko).")),
    ] = None,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help=_("Do without the plugins of third parties."))
    ] = False,
    version: Annotated[bool, typer.Option("--version", help=_("Show the version and exit."))] = False,
) -> None:
    """What happens before a command: the language is already active, and so is what `--no-plugins` says."""
    if version:
        from eulerstack import __version__

        say(f"eulerstack {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def build() -> typer.Typer:
    """The application, with every sentence in the language that is active now."""
    from eulerstack.cli import (
        compile,
        diff,
        explain,
        export,
        exporting,
        importing,
        plugin_doctor,
        plugin_new,
        plugin_show,
        plugins,
        presets,
        schema,
        validate,
    )

    app = _group(
        _("An architecture description language for LLMs: one YAML spec in, one HuggingFace model out."),
        epilog=_(
            "Exit codes: 0 done, 1 problems, 2 wrong command line, 3 models differ. EULERSTACK_LANG sets the language."
        ),
    )
    app.callback(invoke_without_command=True)(root)
    app.command("validate", cls=Command, help=_("Check a spec."))(validate.validate)
    app.command("explain", cls=Command, help=_("Show what model a spec describes, and what it costs."))(explain.explain)
    app.command(
        "compile", cls=Command, help=_("Turn a spec into a HuggingFace model directory or a JSON configuration.")
    )(compile.compile_spec)
    app.command("diff", cls=Command, help=_("Show how two models differ, in architecture and in price."))(diff.diff)
    app.command("schema", cls=Command, help=_("Show the words of the language."))(schema.schema)
    app.command("import", cls=Command, help=_("Turn a HuggingFace checkpoint into a spec and converted weights."))(
        importing.import_directory
    )
    app.command("export", cls=Command, help=_("Turn a model directory into a checkpoint of a HuggingFace family."))(
        export.export_directory
    )
    app.command("export-spec", cls=Command, help=_("Get the spec back from a compiled directory."))(
        exporting.export_spec
    )
    presets_group = _group(_("The specs that are ready to use."))
    presets_group.command("list", cls=Command, help=_("List the presets."))(presets.list_presets)
    presets_group.command("show", cls=Command, help=_("Explain a preset, or print its file."))(presets.show_preset)
    app.add_typer(presets_group, name="presets")
    plugins_group = _group(_("The installed plugins and the words they provide."))
    plugins_group.command("list", cls=Command, help=_("List the plugins, working or not."))(plugins.list_plugins)
    plugins_group.command("show", cls=Command, help=_("Show all that is known of a word or a plugin."))(
        plugin_show.show_plugin
    )
    plugins_group.command("doctor", cls=Command, help=_("Find out why a plugin does not work, or is not listed."))(
        plugin_doctor.doctor
    )
    plugins_group.command("new", cls=Command, help=_("Write a plugin package that works, to begin with."))(
        plugin_new.new_plugin
    )
    app.add_typer(plugins_group, name="plugins")
    return app


def _group(text: str, epilog: str | None = None) -> typer.Typer:
    app = typer.Typer(
        cls=Group,
        help=text,
        epilog=epilog,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True)(_show_help)
    return app


def _show_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
