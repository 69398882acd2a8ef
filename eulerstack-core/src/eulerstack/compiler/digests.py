"""SHA-256 of files, and of files that are still being written."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

CHUNK = 2**20


def sha256(file: Path) -> str:
    """The digest of a whole file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Digests:
    """Digests of files whose parts are written in any order, computed beside the writing by a thread of their own.

    What lies in the file from its beginning without a gap is read back and hashed while other parts are written. As a
    context manager it waits for its thread; after an error it drops what it has not begun.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digests")
        self._work: list[Future[None]] = []
        self._hashes: dict[Path, Any] = {}
        self._ends: dict[Path, dict[int, int]] = {}
        self._position: dict[Path, int] = {}

    def __enter__(self) -> Digests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)

    def written(self, file: Path, begin: int, end: int) -> None:
        """Says that the bytes from `begin` to `end` have been handed to the operating system."""
        ends = self._ends.setdefault(file, {})
        if begin < end:
            ends[begin] = end
        start = stop = self._position.setdefault(file, 0)
        while stop in ends:
            stop = ends.pop(stop)
        if stop > start:
            self._position[file] = stop
            self._work.append(self._thread.submit(self._follow, file, start, stop))

    def result(self) -> dict[str, str]:
        """The digests by file name, of files that were written without a gap."""
        for work in self._work:
            work.result()
        return {file.name: found.hexdigest() for file, found in self._hashes.items()}

    def _follow(self, file: Path, start: int, stop: int) -> None:
        running = self._hashes.setdefault(file, hashlib.sha256())
        with file.open("rb") as stream:
            stream.seek(start)
            while start < stop:
                chunk = stream.read(min(CHUNK, stop - start))
                if not chunk:
                    raise OSError(f"{file} became shorter while it was written")
                running.update(chunk)
                start += len(chunk)
