"""`.ci/run` reports what `make test` found: its status, and pytest's closing lines last."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = """
tests/a.py ...
======================== 3 passed in 0.01s ========================
much that was said afterwards
=================== 1 failed, 2 passed in 0.02s ===================
  py: FAIL code 1 (9.99 seconds)
  evaluation failed :( (10.00 seconds)
"""


def run(folder: Path, status: int) -> subprocess.CompletedProcess[str]:
    """Runs a copy of .ci/run where `make test` prints OUTPUT and ends with `status`."""
    (folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "output").write_text(OUTPUT, encoding="utf-8")
    (folder / "Makefile").write_text(f"test:\n\t@cat output; exit {status}\n", encoding="utf-8")
    return subprocess.run([folder / ".ci" / "run"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("status", [0, 2])
def test_its_status_says_whether_the_checks_passed(tmp_path: Path, status: int) -> None:
    assert (run(tmp_path, status).returncode == 0) is (status == 0)


def test_its_last_lines_are_the_verdicts(tmp_path: Path) -> None:
    closing = run(tmp_path, 0).stdout.splitlines()[-4:]
    assert closing == [line for line in OUTPUT.splitlines() if "passed" in line or ":" in line]
