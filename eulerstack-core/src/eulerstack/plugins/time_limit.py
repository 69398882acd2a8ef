"""A limit on the time that loading a plugin may take, so that one that hangs is set aside like one that fails.

The limit is kept by the alarm signal, which ends Python code, sleeps and waits wherever they stand. Only a process's
main thread has it, and not on Windows; there, and in native code that never returns to Python, a plugin that hangs
hangs the process. `eulerstack plugins doctor` loads plugins in a child process first, and so finds those too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LIMIT_VARIABLE = "EULERSTACK_PLUGIN_SECONDS"
DEFAULT_SECONDS = 10.0
# Code that swallows the first alarm is met with others.
REPEAT_SECONDS = 1.0


class TookTooLong(BaseException):
    """Raised inside code that is over its limit; no Exception, so that `except Exception` lets it pass."""


def seconds_allowed() -> float:
    """The limit for one plugin: EULERSTACK_PLUGIN_SECONDS where it is a number above 0, else ten seconds."""
    try:
        seconds = float(os.environ.get(LIMIT_VARIABLE, ""))
    except ValueError:
        return DEFAULT_SECONDS
    return seconds if 0 < seconds < 1e6 else DEFAULT_SECONDS


def can_limit() -> bool:
    """Whether this thread can be interrupted by an alarm."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TookTooLong inside of the block after `seconds`; without effect where `can_limit` is false.

    An alarm that somebody else has set goes on afterwards, late at worst by the time that the block took.
    """
    if not can_limit():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        if running:
            raise TookTooLong

    running = True
    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A handler that was not set from Python can't be put back, and reads as None.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)
