"""Loads third parties' plugins in a child process, which may hang or die without taking ours along.

The child says in a file which plugin it begins and which it has loaded, so that the parent knows whose fault it is,
and goes on with the next. Native code that hangs is met by faulthandler's watchdog, which needs no interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from eulerstack.errors import Message, msg
from eulerstack.plugins.sources import GROUP, PluginSource
from eulerstack.plugins.time_limit import LIMIT_VARIABLE, seconds_allowed

# What starting Python may take beside loading the plugins.
START_SECONDS = 30.0
CHILD = "import sys, json; asked = json.load(sys.stdin); sys.path[:] = asked['path']; " \
        "from eulerstack.plugins.probe import load_each; load_each(**asked)"  # fmt: skip


@dataclass(frozen=True)
class Death:
    """What became of a plugin that the child did not survive."""

    error: Message
    traceback: str


def probed(sources: Sequence[PluginSource]) -> dict[str, Death]:
    """The plugins, by their identity, that hang or end the process when they are loaded; others may fail or not."""
    found: dict[str, Death] = {}
    waiting = [source for source in sources if source.target]
    while waiting:
        with tempfile.TemporaryDirectory() as folder:
            done, death = _load(waiting, Path(folder))
        if death is None or done >= len(waiting):
            break
        found[waiting[done].identity] = death
        waiting = waiting[done + 1 :]
    return found


def _load(sources: Sequence[PluginSource], folder: Path) -> tuple[int, Death | None]:
    """How many plugins a child got through, and what ended it before it was through with all of them."""
    seconds = seconds_allowed()
    progress, errors = folder / "progress", folder / "errors"
    progress.touch()
    asked = {
        # The child works in a folder of its own.
        "path": [path or os.getcwd() for path in sys.path],
        "targets": [source.target for source in sources],
        "progress": str(progress),
        "seconds": seconds,
    }
    with errors.open("w+b") as stderr, (folder / "asked").open("w+", encoding="utf-8") as stdin:
        json.dump(asked, stdin)
        stdin.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, cwd=folder
        )
        try:
            status: int | None = child.wait(START_SECONDS + seconds * len(sources))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            child.kill()
            child.wait()
    loaded = len(progress.read_text(encoding="ascii"))
    text = errors.read_text(encoding="utf-8", errors="replace")
    if status == 0 and loaded == len(sources):
        return loaded, None
    if status is None or text.startswith("Timeout ("):
        error = msg(
            "loading it took more than {seconds} seconds; {variable} sets the limit",
            seconds=f"{seconds:g}",
            variable=LIMIT_VARIABLE,
        )
    else:
        error = msg("loading it ended the process with status {status}", status=status)
    return loaded, Death(error, text)


def load_each(path: list[str], targets: list[str], progress: str, seconds: float) -> None:
    """The child's part: writes a letter to the file `progress` for each plugin that is loaded, or fails to be."""
    import faulthandler
    from contextlib import suppress
    from importlib.metadata import EntryPoint

    errors: IO[str] = sys.stderr
    faulthandler.enable(errors)
    sys.stderr = sys.stdout
    with open(progress, "a", encoding="ascii") as letters:
        for target in targets:
            faulthandler.dump_traceback_later(seconds, exit=True, file=errors)
            # What it raises is met again, and kept, where it is loaded in earnest.
            with suppress(BaseException):
                EntryPoint("probed", target, GROUP).load()
            faulthandler.cancel_dump_traceback_later()
            letters.write(".")
            letters.flush()
    # Threads that a plugin has started, and what it does at exit, are nobody's concern.
    os._exit(0)
