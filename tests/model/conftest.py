"""Fewer variants where time is short: EULERSTACK_VARIANTS=few keeps every fourth of each family, its first at least.

What depends on a variant's arithmetic is run with all of them where this is not set; another version of transformers
has one way of calling models, caches and generation, which every family shows.
"""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("EULERSTACK_VARIANTS") != "few":
        return
    from tests.model.variants import FEW, VARIANTS

    left_out = {item for item in items if _variant(item) in set(VARIANTS) - FEW}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def _variant(item: pytest.Item) -> object:
    """The variant that a test is about; None where it is about another matter."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    name = params.get("name", params.get("model"))
    return name[0] if isinstance(name, tuple) else name
