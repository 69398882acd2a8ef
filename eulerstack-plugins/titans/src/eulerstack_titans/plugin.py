"""The hooks of eulerstack-titans."""

from __future__ import annotations

from eulerstack.plugins import Primitive, Rule, hookimpl
from eulerstack_titans.declarations.associative import ASSOCIATIVE
from eulerstack_titans.declarations.neural_memory import NEURAL_MEMORY
from eulerstack_titans.declarations.retrieval import RETRIEVAL
from eulerstack_titans.declarations.rules import MEMORY_RANGE


@hookimpl
def eulerstack_memories() -> tuple[Primitive, ...]:
    """The memories `neural_memory`, `associative` and `retrieval`."""
    return (NEURAL_MEMORY, ASSOCIATIVE, RETRIEVAL)


@hookimpl
def eulerstack_rules() -> tuple[Rule, ...]:
    """Realism rules."""
    return (MEMORY_RANGE,)
