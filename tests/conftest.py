"""What all tests of a process share: a folder for the code that from_pretrained copies, and graphs that are forgotten.

Where torch is not installed, files that import it are not read; the others show that they need none.

transformers copies the code of a model directory into a folder of its own, where a package of one name can be imported
from one place only. So each process has one such folder, set before transformers is imported, and none is the user's.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

MODULES = tempfile.mkdtemp(prefix="eulerstack-modules-")
os.environ["HF_MODULES_CACHE"] = MODULES
atexit.register(shutil.rmtree, MODULES, ignore_errors=True)

IMPORTS_TORCH = re.compile(r"^(?:import|from) (?:torch|transformers)\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Whether torch is missing and the file imports it, or what is built on it, when it is read."""
    if find_spec("torch") is not None or collection_path.suffix != ".py":
        return None
    return bool(IMPORTS_TORCH.search(collection_path.read_text(encoding="utf-8"))) or None


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    """Dynamo keeps at most eight graphs of a function, and models of all tests share theirs."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
