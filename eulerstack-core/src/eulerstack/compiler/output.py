"""Where a compile may write, and how: whole or not at all, and never over what nobody asked to replace.

A directory or a file is made beside its place under a temporary name and takes the place by one rename, with the
permissions that the process's umask gives to what it makes. Torch-free.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eulerstack.errors import CompileError, Diagnostic, Message, msg

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SEE = "reference/errors.md#output"
UNFINISHED = ".partial"
MODEL_FILES = (".json", ".py", ".safetensors", ".yml")
# Of Linux's renameat2.
AT_WORKING_DIRECTORY, EXCHANGE = -100, 2


def refusal(path: Path | str, what: Message, fix: Message) -> CompileError:
    """The error for an output that can't be written, or must not be."""
    return CompileError([Diagnostic(CompileError.category, what, fix, SEE, str(path))])


def check_directory(path: Path | str, force: bool) -> None:
    """Raises a CompileError unless a directory may be written at `path`.

    With `force` a directory with content may be replaced; a file, the working directory, those above it and the home
    directory never.
    """
    place = Path(os.path.realpath(path))
    if _exists(path, place) and not place.is_dir():
        raise refusal(path, msg("there is a file of this name already"), msg("choose another output directory"))
    here = Path.cwd()
    if place in (here, *here.parents, Path.home()):
        raise refusal(
            path,
            msg("it is the working directory, one above it, or your home"),
            msg("name a directory of its own, such as {path}", path=str(here / "my_model")),
        )
    if force and place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        # Its content could not be removed.
        raise _failed(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if not force and place.is_dir() and any(place.iterdir()):
        fix = msg("choose another path, or add --force (in Python: force=True) to replace it")
        raise refusal(path, msg("the directory is not empty"), fix)


def keep_input(path: Path | str, source: Path | str, but: str = "") -> None:
    """Raises a CompileError for an output that would replace what is read, also with force.

    That is `source` itself, a directory that holds it, and where it is a model directory, a part of the model that is
    not called `but`.
    """
    place, read = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    fix = msg("choose another path")
    if read.is_relative_to(place):
        raise refusal(path, msg("what is read is there"), fix)
    if place.parent == read and place.suffix in MODEL_FILES and place.name != but and os.path.lexists(place):
        raise refusal(path, msg("it is a part of the model that is read"), fix)


def check_file(path: Path | str, force: bool) -> None:
    """Raises a CompileError unless a file may be written at `path`; with `force` a regular file may be replaced."""
    place = Path(os.path.realpath(path))
    if _exists(path, place) and not place.is_file():
        raise refusal(path, msg("it is not a regular file"), msg("name a file, such as {path}", path="config.json"))
    if not force and (place.exists() or os.path.islink(path)):
        raise refusal(
            path, msg("there is a file of this name already"), msg("choose another path, or add --force to replace it")
        )


def _exists(path: Path | str, place: Path) -> bool:
    """Whether something is there; a CompileError for a place where nothing can be, such as a name that is too long."""
    try:
        os.stat(place)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(path, error) from error
    return True


def _failed(path: Path | str, error: OSError) -> CompileError:
    what = msg("it can't be written: {error}", error=error.strerror or str(error))
    return refusal(path, what, msg("check that the path exists, is writable and has room"))


@contextmanager
def replacing_directory(path: Path | str, force: bool) -> Iterator[Path]:
    """An empty directory that takes the place of `path` when the block ends well, and vanishes when it doesn't.

    A process that is killed leaves it behind, hidden; the next that writes to the same place takes it away.
    Errors: CompileError as `check_directory` raises, or when the file system refuses.
    """
    place = Path(os.path.realpath(path))
    made = [parent for parent in (place.parent, *place.parent.parents) if not parent.exists()]
    temporary: Path | None = None
    lock: int | None = None
    try:
        check_directory(path, force)
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place)
        temporary, lock = _unfinished(place)
        os.chmod(temporary, 0o777 & ~umask())
        yield temporary
        if force:
            _swap(temporary, place)
        else:
            _place_directory(temporary, place, path)
        made = []
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        for parent in made:
            # One that holds something by now is somebody's.
            with suppress(OSError):
                parent.rmdir()


def _unfinished(place: Path) -> tuple[Path, int | None]:
    """A new hidden directory beside `place`, and its mark as being in use."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=UNFINISHED, dir=place.parent))
        try:
            mark = in_use(folder)
        except FileNotFoundError:
            # Another process has swept it away before it was marked.
            continue
        if mark is not None or fcntl is None:
            return folder, mark


def _prefix(place: Path) -> str:
    return f".{place.name[:40]}."


def in_use(folder: Path) -> int | None:
    """Marks a directory as this process's until the file descriptor returned is closed or the process ends.

    None where the system has no such marks.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(place: Path) -> None:
    """Removes what processes that were killed have left of `place`; what a living one is at work on stays."""
    for left in place.parent.glob(f"{glob.escape(_prefix(place))}????????{UNFINISHED}"):
        mark = in_use(left) if left.is_dir() and not left.is_symlink() else None
        if mark is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(mark)


def _place_directory(temporary: Path, place: Path, path: Path | str) -> None:
    """Puts a directory where nothing is, or an empty one; CompileError where another process has put one meanwhile."""
    try:
        temporary.rename(place)
    except OSError:
        check_directory(path, force=False)
        if not place.is_dir():
            raise
        # Windows renames onto nothing, not even onto an empty directory.
        place.rmdir()
        temporary.rename(place)


def _place_file(temporary: str, place: Path, path: Path | str) -> None:
    """Puts a file where there is none; CompileError where another process has put one meanwhile."""
    try:
        os.link(temporary, place)
    except FileExistsError:
        check_file(path, force=False)
        raise
    except OSError:
        # A file system without links.
        os.replace(temporary, place)


def _swap(temporary: Path, place: Path) -> None:
    """Puts a directory in its place; one that was there takes the temporary name, in the same step where possible."""
    if not place.exists():
        temporary.rename(place)
        return
    if _exchange(temporary, place):
        return
    old = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=UNFINISHED, dir=place.parent)) / place.name
    place.rename(old)
    try:
        temporary.rename(place)
    except OSError:
        old.rename(place)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Whether the two names could be exchanged at once, which Linux can on most file systems."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return rename(AT_WORKING_DIRECTORY, os.fsencode(one), AT_WORKING_DIRECTORY, os.fsencode(other), EXCHANGE) == 0


@contextmanager
def replacing_file(path: Path | str, text: str, force: bool) -> Iterator[None]:
    """Writes `text` beside `path`, and moves it there when the block ends well.

    Errors: CompileError as `check_file` raises, or when the file system refuses.
    """
    place = Path(os.path.realpath(path))
    temporary = ""
    try:
        check_file(path, force)
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=_prefix(place), suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~umask())
        yield
        if force:
            os.replace(temporary, place)
        else:
            _place_file(temporary, place, path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def umask() -> int:
    """The permissions that this process takes from what it makes; what `tempfile` makes has none for others."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
