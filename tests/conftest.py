"""Compiled graphs of one test don't count against the next one's limit."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    """Dynamo keeps at most eight graphs of a function, and models of all tests share theirs."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
