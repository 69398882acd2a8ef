"""What all tests of a process share: a folder for the code that from_pretrained copies, and graphs that are forgotten.

transformers copies the code of a model directory into a folder of its own, where a package of one name can be imported
from one place only. So each process has one such folder, set before transformers is imported, and none is the user's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

import pytest

MODULES = tempfile.mkdtemp(prefix="eulerstack-modules-")
os.environ["HF_MODULES_CACHE"] = MODULES
atexit.register(shutil.rmtree, MODULES, ignore_errors=True)


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    """Dynamo keeps at most eight graphs of a function, and models of all tests share theirs."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
