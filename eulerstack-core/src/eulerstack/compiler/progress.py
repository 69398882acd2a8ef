"""How far a long piece of work has come, for whoever wants to show it.

The work calls `report`; a caller that shows it wraps the whole in `watched`. Without one, reports go nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[int, int], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Has `watcher(done, total)`, in bytes, called now and then while the block runs."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def report(done: int, total: int) -> None:
    """Tells the watcher, if there is one, that `done` of `total` bytes are written."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(done, total)
