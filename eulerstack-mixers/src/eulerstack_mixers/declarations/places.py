"""Where a model has its mixers, for rules that look at all of them, branches included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def placed_mixers(ir: Any) -> Iterator[tuple[str, Any]]:
    """(path of the mapping that names it, mixer) of every mixer that owns a cache slot, layer by layer."""
    for layer in ir.layers:
        yield from layer.placed_mixers


def mixers_of(ir: Any) -> list[Any]:
    """Those mixers alone."""
    return [mixer for _, mixer in placed_mixers(ir)]
