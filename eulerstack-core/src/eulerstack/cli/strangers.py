"""Third parties' plugins and the command line: doing without them, and whose fault an unexpected error is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eulerstack.plugins.sources import PluginRecord

NO_PLUGINS = "--no-plugins"


def before_command(arguments: Sequence[str]) -> list[str]:
    """The arguments before the command; the value of `--lang` is empty there."""
    found: list[str] = []
    for argument in arguments:
        if found[-1:] == ["--lang"]:
            found.append("")
        elif argument.startswith("-"):
            found.append(argument)
        else:
            break
    return found


@contextmanager
def as_asked(arguments: Sequence[str]) -> Iterator[None]:
    """Under `--no-plugins` switches third parties' plugins off, for processes that a command starts too.

    Afterwards all is as before.
    """
    if NO_PLUGINS not in before_command(arguments):
        yield
        return
    from eulerstack.plugins.manager import reset_registry
    from eulerstack.plugins.sources import ALL_OTHERS, DISABLE_VARIABLE

    before = os.environ.get(DISABLE_VARIABLE)
    os.environ[DISABLE_VARIABLE] = f"{before},{ALL_OTHERS}" if before else ALL_OTHERS
    reset_registry()
    try:
        yield
    finally:
        del os.environ[DISABLE_VARIABLE]
        if before is not None:
            os.environ[DISABLE_VARIABLE] = before
        reset_registry()


def culprit(error: BaseException) -> PluginRecord | None:
    """The third party's plugin in whose code, or beneath which, an exception was raised."""
    from eulerstack.plugins.manager import get_registry

    frame, modules = error.__traceback__, []
    while frame is not None:
        modules.append(str(frame.tb_frame.f_globals.get("__name__", "")))
        frame = frame.tb_next
    registry = get_registry(strict=False)
    records = registry.records()
    # Classes may lie in another package than the entry point does, but one of ours is nobody else's.
    homes = {
        each.module.partition(":")[0].partition(".")[0]: registry.record_of(each)
        for each in registry.primitives()
        if each.module
    }
    homes |= {record.module: record for record in records if not record.own}
    ours = {record.module for record in records if record.own}
    strangers = {name: record for name, record in homes.items() if not record.own and name not in ours}
    return next((strangers[top] for each in reversed(modules) if (top := each.partition(".")[0]) in strangers), None)


@contextmanager
def leniently() -> Iterator[None]:
    """Strict mode is off: for commands that show what is wrong with plugins, and so must not end because of it."""
    from eulerstack.plugins.sources import STRICT_VARIABLE

    before = os.environ.pop(STRICT_VARIABLE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[STRICT_VARIABLE] = before
