"""Where a compile may write, and how: whole or not at all, and never over what nobody asked to replace.

A directory or a file is made beside its place under a temporary name and takes the place by one rename, with the
permissions that the process's umask gives to what it makes. Torch-free.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eulerstack.errors import CompileError, Diagnostic, Message, msg

SEE = "reference/errors.md#output"


def refusal(path: Path | str, what: Message, fix: Message) -> CompileError:
    """The error for an output that can't be written, or must not be."""
    return CompileError([Diagnostic(CompileError.category, what, fix, SEE, str(path))])


def check_directory(path: Path | str, force: bool) -> None:
    """Raises a CompileError unless a directory may be written at `path`.

    With `force` a directory with content may be replaced; a file, the working directory, those above it and the home
    directory never.
    """
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_dir():
        raise refusal(path, msg("there is a file of this name already"), msg("choose another output directory"))
    here = Path.cwd()
    if place in (here, *here.parents, Path.home()):
        raise refusal(
            path,
            msg("it is the working directory, one above it, or your home"),
            msg("name a directory of its own, such as {path}", path=str(here / "my_model")),
        )
    if not force and place.is_dir() and any(place.iterdir()):
        raise refusal(path, msg("the directory is not empty"), msg("choose another path, or add --force to replace it"))


def check_file(path: Path | str, force: bool) -> None:
    """Raises a CompileError unless a file may be written at `path`; with `force` a regular file may be replaced."""
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        raise refusal(path, msg("it is not a regular file"), msg("name a file, such as {path}", path="config.json"))
    if not force and (place.exists() or os.path.islink(path)):
        raise refusal(
            path, msg("there is a file of this name already"), msg("choose another path, or add --force to replace it")
        )


@contextmanager
def replacing_directory(path: Path | str, force: bool) -> Iterator[Path]:
    """An empty directory that takes the place of `path` when the block ends well, and vanishes when it doesn't.

    Errors: CompileError as `check_directory` raises, or when the file system refuses.
    """
    place = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        check_directory(path, force)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.", suffix=".partial", dir=place.parent))
        os.chmod(temporary, 0o777 & ~umask())
        yield temporary
        _swap(temporary, place)
    except OSError as error:
        raise refusal(
            path,
            msg("it can't be written: {error}", error=error.strerror or str(error)),
            msg("check that the path exists, is writable and has room"),
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, place: Path) -> None:
    if not place.exists():
        temporary.rename(place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.", suffix=".old", dir=place.parent)) / place.name
    place.rename(old)
    try:
        temporary.rename(place)
    except OSError:
        old.rename(place)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


@contextmanager
def replacing_file(path: Path | str, text: str, force: bool) -> Iterator[None]:
    """Writes `text` beside `path`, and moves it there when the block ends well.

    Errors: CompileError as `check_file` raises, or when the file system refuses.
    """
    place = Path(os.path.realpath(path))
    temporary = ""
    try:
        check_file(path, force)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name[:40]}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~umask())
        yield
        os.replace(temporary, place)
    except OSError as error:
        raise refusal(
            path,
            msg("it can't be written: {error}", error=error.strerror or str(error)),
            msg("check that the path exists, is writable and has room"),
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def umask() -> int:
    """The permissions that this process takes from what it makes; what `tempfile` makes has none for others."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
