"""Exported directories, loaded in a process where neither eulerstack nor its plugins' packages can be imported."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from eulerstack.compiler.compile import compile_to_directory, compile_to_hf_model
from eulerstack.ir import normalize_to_ir
from eulerstack.testing.example import Example
from eulerstack.testing.models import enliven

PROCESS = Path(__file__).with_name("elsewhere_process.py")


class Elsewhere:
    """A process that loads directories, kept for the next one; `python` is its interpreter."""

    def __init__(self, python: str = sys.executable):
        self.python = python
        self.home = tempfile.mkdtemp(prefix="eulerstack-elsewhere-")
        self.process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def load(self, directory: Path, hidden: Iterable[str] = (), again: Path | None = None) -> dict[str, Any]:
        """What the model computes there: `logits`, `hidden`, `generated`, `dtype`.

        Packages of EulerStack, and those named by `hidden`, can't be imported. With `again` the model
        is saved into that directory and loaded from it before.
        Errors: AssertionError with the traceback of that process.
        """
        results = Path(self.home, "results.pt")
        request = {
            "directory": str(directory),
            "hidden": list(hidden),
            "results": str(results),
            "again": None if again is None else str(again),
        }
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"{self.python} ended with status {process.wait()}"
        error = json.loads(answer)
        assert error is None, f"it can't be loaded where its packages are not installed:\n{error}"
        found: dict[str, Any] = torch.load(results)
        return found

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": self.home}
            self.process = subprocess.Popen(
                [self.python, str(PROCESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        return self.process

    def close(self) -> None:
        """Ends the process and forgets what it has written."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


_processes: dict[str, Elsewhere] = {}


def elsewhere(python: str = sys.executable) -> Elsewhere:
    """The process of an interpreter, one for all tests of this process."""
    return _processes.setdefault(python, Elsewhere(python))


def lively_directory(spec: Any, directory: Path) -> Any:
    """Compiles `spec`, then shifts every stored weight, so that nothing can hide behind initial values; the model."""
    ir = normalize_to_ir(spec)
    compile_to_directory(ir, directory)
    model = compile_to_hf_model(ir)
    enliven(model)
    stored = load_file(directory / "model.safetensors")
    state = model.state_dict()
    save_file({name: state[name].clone() for name in stored}, directory / "model.safetensors", {"format": "pt"})
    return model


def check_export(example: Example) -> None:
    """Its export gives the same numbers where neither eulerstack nor its package is installed."""
    package = example.primitive.module.partition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        model = lively_directory(example.spec(), Path(folder, "model"))
        compare_elsewhere(model, Path(folder, "model"), Path(folder, "again"), [package] if package else [])


def compare_elsewhere(model: Any, directory: Path, again: Path, hidden: Iterable[str] = ()) -> None:
    """The model in the directory, saved, loaded again and asked elsewhere, says what this one says."""
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = elsewhere().load(directory, hidden, again)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits), "the exported model gives other logits"
        assert torch.equal(found["hidden"], model.model(ids).last_hidden_state), "the exported stack gives other states"
    generated = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(found["generated"], generated), "the exported model generates other tokens"
