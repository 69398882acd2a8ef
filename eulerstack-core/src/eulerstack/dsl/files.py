"""The bytes of a spec's file, or a located error that says what stands in the way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from eulerstack.dsl.limits import MAX_BYTES
from eulerstack.dsl.suggest import nearest
from eulerstack.errors import Collector, Location, Message, msg


def read_bytes(file: str) -> bytes:
    """A file's bytes. Raises ValidationError for what is no regular file, can't be read, or is too large."""
    if _is_named_pipe(file):
        fail(
            file,
            msg("this is a pipe with a name, which may never end"),
            msg("Type the path of a regular file, or read from /dev/stdin"),
            "reference/errors.md#file",
        )
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        if not os.access(file, os.R_OK | os.X_OK):
            _unreadable(file, os.strerror(errno.EACCES))
        fail(file, msg("this is a directory, not a file"), _fix_directory(file), "reference/errors.md#file")
    except (FileNotFoundError, NotADirectoryError):
        near = _neighbour(file)
        fix = msg("Type {file}", file=near) if near else msg("Check the path; presets list shows the presets' names")
        fail(file, msg("the file does not exist"), fix, "reference/errors.md#file")
    except (OSError, ValueError) as error:
        _unreadable(file, getattr(error, "strerror", None) or str(error))
    if len(data) > MAX_BYTES:
        too_large(file)
    return data


def _unreadable(file: str, reason: str) -> None:
    what = msg("the file can't be read: {reason}", reason=reason)
    fail(file, what, msg("Check the path and its rights"), "reference/errors.md#file")


def wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 where a text has several bytes to each character, marked as such or not; None elsewhere."""
    # A spec begins with ASCII characters, which leave the other bytes of a wide one zero.
    pattern = bytes(min(byte, 1) for byte in data[:4])
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) or pattern in (b"\1\0\0\0", b"\0\0\0\1"):
        return "UTF-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or pattern in (b"\1\0\1\0", b"\0\1\0\1"):
        return "UTF-16"
    return None


def _is_named_pipe(file: str) -> bool:
    """Whether reading could wait for ever; the pipes of a shell, below /dev and /proc, have a writer."""
    try:
        return not file.startswith(("/dev/", "/proc/")) and stat.S_ISFIFO(os.stat(file).st_mode)
    except (OSError, ValueError):
        return False


def _neighbour(file: str) -> str | None:
    folder, name = os.path.split(file)
    try:
        near = nearest(name, (each for each in os.listdir(folder or ".")[:10_000] if each != name))
    except (OSError, ValueError):
        return None
    return os.path.join(folder, near) if near else None


def _fix_directory(folder: str) -> Message:
    specs = sorted(Path(folder).glob("*.y*ml"))
    if specs:
        return msg("Type the path of a spec in it, for example {file}", file=str(specs[0]))
    return msg("Type the path of a spec, for example {file}", file=os.path.join(folder, "model.yml"))


def too_large(file: str) -> None:
    """Raises the ValidationError for a text of more than MAX_BYTES bytes."""
    fail(
        file,
        msg("the file is larger than {limit} bytes", limit=MAX_BYTES),
        msg("Use repeat and layer_templates instead of writing layers out"),
        "reference/errors.md#too-large",
    )


def fail(file: str, what: Message, fix: Message, see: str, mark: tuple[int, int] = (1, 1)) -> Any:
    """Raises a ValidationError of one problem at `mark` (line, column) of a file; file "" has no place."""
    problems = Collector("ValidationError")
    problems.add("", what, fix, see, Location(file, *mark) if file else None)
    problems.raise_if_any()
