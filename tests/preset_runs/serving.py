"""A process in which eulerstack can't be imported, and which says what comes of compiled directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TEXT = HERE.parents[1] / "README.md"

Serve = Callable[[Path, Path, int], dict[str, Any]]


@contextmanager
def serving() -> Iterator[Serve]:
    """The function that asks the process: (directory, where to save, training steps) -> what came of it."""
    command = [sys.executable, "-W", "ignore", str(HERE / "offline_worker.py")]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
    assert worker.stdin is not None and worker.stdout is not None
    requests, answers = worker.stdin, worker.stdout

    def ask(directory: Path, again: Path, steps: int) -> dict[str, Any]:
        print(json.dumps([str(directory), str(again), str(TEXT), steps]), file=requests, flush=True)
        for line in answers:
            if line.startswith("RESULT "):
                return json.loads(line.removeprefix("RESULT "))
        raise AssertionError(f"the process ended with {worker.wait()}")

    try:
        yield ask
    finally:
        requests.close()
        answers.close()
        assert worker.wait(timeout=60) == 0
