"""docs/reference/cli.md: every command and option, from the command tree in English."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pages.markdown import GENERATED, join, table

INTRODUCTION = """\
# The command line

`eulerstack [--lang LANG] COMMAND [OPTIONS]`. Names of commands and options are the same in every language."""

USAGE = """\
## Usage

A spec is given as an argument or by `--preset`: a path, the name of a preset, or a directory that `compile` wrote.
`validate` takes several at once. Results go to standard output,
problems to standard error, three lines each:

    <Category>: <file>:<line>:<column>: <path>: <what>
    Fix: <what to type>
    See: <page#anchor in this documentation>

All problems of a stage are shown together, at most `--max-errors` of them. Output is plain when piped; `--json` prints
JSON where a command has it."""

SET = """\
## Set

`--set PATH=VALUE` changes a spec before it is read, as if the file had said so; it may be given several times, on every
command that reads a spec. A path has keys with dots between them, and `[number]` for an element of a list; keys that
are not there yet are added. A value is YAML in one line, with `${…}` where a number may stand:

    eulerstack explain llm_0p1b_simple --set model.d_model=512 --set 'layer_schedule[0].repeat=${2 * 3}'

`diff A --set …` compares a model with what it becomes so; `diff A B --set …` changes both. Messages then name the
option in place of the file. A model directory that is compiled so holds the whole spec in canonical form, not the
file's text. In Python: `es.load("llm_0p1b_simple", ["model.d_model=512"])`."""

EXIT_CODES = """\
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done; findings of `--report` are warnings and keep it 0 |
| 1 | the spec, the installation or the output has problems |
| 2 | the command line itself is wrong |
| 3 | `diff` found that the models differ |
| 130 | interrupted |
| 141 | the reader of a pipe went away |"""

LANGUAGES = """\
## Languages

Messages and help are in Korean by default; `--lang` before the command, or `EULERSTACK_LANG`, chooses `ko`, `en`, `zh`,
`ja` or `es`. The category, `Fix:` and `See:` stay as they are, so that scripts can rely on them."""

OUTPUT = """\
## Output

Files and directories are written whole or not at all: into a temporary sibling first, then renamed. An existing file
and a directory that is not empty are refused without `--force`."""

DEFECTS = """\
## Defects

A message that calls itself a defect is one, of EulerStack or of a plugin. `EULERSTACK_TRACEBACK=1` shows where it
happened; please report it with the spec."""


def page() -> str:
    """The page's text; the active language must be English."""
    from typer.main import get_command

    from eulerstack.cli.application import build

    command = get_command(build())
    return join(
        GENERATED,
        INTRODUCTION,
        options_table(command),
        command_list(command),
        USAGE,
        SET,
        EXIT_CODES,
        LANGUAGES,
        OUTPUT,
        DEFECTS,
        "# Commands",
        *(section(path, each) for path, each in walk(command)),
    )


def walk(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `group` with its path, groups included."""
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if hasattr(command, "commands"):
            yield from walk(command, (*prefix, name))


def command_list(group: Any) -> str:
    """A table of all commands."""
    rows = [
        [f"[`{' '.join(path)}`](#{'-'.join(path)})", command.help]
        for path, command in walk(group)
        if not hasattr(command, "commands")
    ]
    return table(["command", "what it does"], rows)


def section(path: tuple[str, ...], command: Any) -> str:
    """A heading, the purpose, the usage and a table of options."""
    arguments = [f"[{each.metavar}]" for each in command.params if each.param_type_name == "argument"]
    usage = " ".join(["eulerstack", *path, *arguments, "[OPTIONS]"])
    is_group = hasattr(command, "commands")
    heading = f"{'##' if len(path) == 1 else '###'} {' '.join(path)}"
    return join(heading, command.help, "" if is_group else f"    {usage}", "" if is_group else options_table(command))


def options_table(command: Any) -> str:
    """A row for each argument and option."""
    rows = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar}`"
        else:
            names = ", ".join(f"`{name}`" for name in parameter.opts)
            names += f" `{parameter.metavar}`" if parameter.metavar else ""
        rows.append([names, parameter.help or ""])
    return table(["option", "meaning"], rows) if rows else ""
