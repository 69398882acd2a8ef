"""`eulerstack plugins doctor`: every entry point, why something isn't listed, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import FAILED
from eulerstack.cli.options import json_option
from eulerstack.cli.plugins import has_nvidia_driver
from eulerstack.cli.strangers import leniently
from eulerstack.cli.terminal import Column, columns, say, say_json, say_pairs, say_table, styled, wrap
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.cli.examining import Examination, Plugin, Problem


def doctor(
    traceback: Annotated[
        bool, typer.Option("--traceback", help=_("Show where it happened, for what raised an error."))
    ] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """A row for every entry point, then what is wrong with each; ends with exit code 1 where something is."""
    from eulerstack.cli.examining import examine

    with leniently():
        found = examine()
    if as_json:
        say_json(_data(found))
    else:
        _print_versions(found)
        _print_plugins(found, traceback)
        _print_kernels(found)
        _print_outcome(found, traceback)
    if not found.healthy:
        raise typer.Exit(FAILED)


def _print_versions(found: Examination) -> None:
    say(f"EulerStack {found.eulerstack}, API {found.api_version}, Python {found.python}")
    installed = [f"{name} {version}" for name, version in found.packages.items() if version]
    missing = [name for name, version in found.packages.items() if not version]
    for line in wrap(", ".join(installed), _width()) if installed else ():
        say(line)
    if missing:
        _say_wrapped(_("Models can't be built here without: {packages}").format(packages=", ".join(missing)))
    say(_("An NVIDIA driver is loaded.") if has_nvidia_driver() else _("No NVIDIA driver is loaded."))
    say()


def _print_plugins(found: Examination, traceback: bool) -> None:
    titles = [Column(_("State")), Column(_("Package"), wraps=True), Column(_("Version")), Column("API"),
              Column(_("Provides"), right=True)]  # fmt: skip
    rows = [
        (
            plugin.record.state,
            plugin.record.identity,
            plugin.record.version,
            "—" if plugin.record.api_version is None else str(plugin.record.api_version),
            str(len(plugin.record.provides) if plugin.record.state == "ok" else 0),
        )
        for plugin in found.plugins
    ]
    say_table(titles, rows)
    for plugin in found.plugins:
        if plugin.problems or plugin.notes:
            say()
            say(styled(plugin.record.identity, "bold"))
            _print_findings(plugin.problems, plugin)
            if traceback and plugin.traceback:
                for line in plugin.traceback.rstrip().splitlines():
                    say("    " + line)
    if found.problems:
        say()
        say(styled(_("Beside the plugins"), "bold"))
        _print_findings(found.problems)


def _print_findings(problems: list[Problem], plugin: Plugin | None = None) -> None:
    for problem in problems:
        _say_wrapped(problem.what.render(), "  ", "error")
        if problem.fix is not None:
            _say_wrapped(f"Fix: {problem.fix.render()}", "  ")
    for note in [] if plugin is None else plugin.notes:
        _say_wrapped(note.render(), "  ")


def _print_kernels(found: Examination) -> None:
    if found.kernels:
        say()
        say(styled(_("Kernels"), "bold"))
        say_pairs([(f"{each.name} ({each.device})", f"{', '.join(each.words)}: {each.state.render()}")
                   for each in found.kernels])  # fmt: skip


def _print_outcome(found: Examination, traceback: bool) -> None:
    say()
    if found.healthy:
        say(_("Everything works."))
        return
    count = len(found.problems) + sum(len(plugin.problems) for plugin in found.plugins)
    _say_wrapped(_("Problems: {count}. All else works.").format(count=count))
    if not traceback and any(plugin.traceback for plugin in found.plugins):
        _say_wrapped(_("eulerstack plugins doctor --traceback shows where they happened."))


def _say_wrapped(text: str, before: str = "", style: str = "") -> None:
    for line in wrap(text, _width() - len(before)):
        say(before + (styled(line, style) if style else line))


def _width() -> int:
    return min(columns(), 110)


def _data(found: Examination) -> dict[str, Any]:
    def listed(problems: list[Problem]) -> list[dict[str, str | None]]:
        return [{"what": each.what.render(), "fix": each.fix.render() if each.fix else None} for each in problems]

    return {
        "eulerstack": found.eulerstack,
        "api_version": found.api_version,
        "python": found.python,
        "packages": found.packages,
        "nvidia_driver": has_nvidia_driver(),
        "plugins": [
            {
                "name": plugin.record.name,
                "package": plugin.record.package,
                "version": plugin.record.version,
                "api_version": plugin.record.api_version,
                "state": plugin.record.state,
                "provides": [{"kind": space, "name": name} for space, name in plugin.record.provides],
                "problems": listed(plugin.problems),
                "notes": [note.render() for note in plugin.notes],
                "traceback": plugin.traceback or None,
            }
            for plugin in found.plugins
        ],
        "problems": listed(found.problems),
        "kernels": [
            {"name": each.name, "device": each.device, "words": list(each.words), "state": each.state.render(),
             "in_use": each.used}
            for each in found.kernels
        ],
        "healthy": found.healthy,
    }  # fmt: skip
