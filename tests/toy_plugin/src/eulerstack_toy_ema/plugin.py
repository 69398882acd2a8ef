"""The hooks of this package."""

from __future__ import annotations

from eulerstack.plugins import Primitive, hookimpl
from eulerstack_toy_ema.declarations.ema import EMA


@hookimpl
def eulerstack_mixers() -> list[Primitive]:
    """The mixer `vendor.toy.ema`."""
    return [EMA]
