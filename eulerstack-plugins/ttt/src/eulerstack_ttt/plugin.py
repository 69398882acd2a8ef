"""The hooks of eulerstack-ttt."""

from __future__ import annotations

from eulerstack.plugins import Primitive, Rule, hookimpl
from eulerstack_ttt.declarations.rules import TTT_RANGE
from eulerstack_ttt.declarations.ttt import TTT_LAYER


@hookimpl
def eulerstack_mixers() -> tuple[Primitive, ...]:
    """The mixer `ttt_layer`."""
    return (TTT_LAYER,)


@hookimpl
def eulerstack_rules() -> tuple[Rule, ...]:
    """Realism rules."""
    return (TTT_RANGE,)
