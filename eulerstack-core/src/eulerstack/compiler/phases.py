"""What the phases of a generation take: tokens, context, cache."""

from __future__ import annotations

from typing import Any

from eulerstack.hf.phase_lengths import longest_context, total_budget
from eulerstack.ir.types import ModelIR, thaw


def phase_context(ir: ModelIR) -> int:
    """The most tokens of phases that a context holds at once, beside the prompt; 0 without phases."""
    return longest_context(ir.execution_modes, ir.transition.get("token") is not None)


def phase_facts(ir: ModelIR) -> dict[str, Any] | None:
    """The phases with the most tokens that they generate and that they hold at once; None where there are none."""
    if not ir.execution_modes:
        return None
    return {
        "modes": thaw(ir.execution_modes),
        "transition": thaw(ir.transition),
        "total_budget": total_budget(ir.execution_modes),
        "longest_context": phase_context(ir),
    }
