"""Rules that join a layer's two branches with its input.

sequential: h = x + s·mixer(norm(x)); y = h + s·ffn(norm(h))
parallel:   y = x + s·mixer(n) + s·ffn(n), n = norm(x), one norm for both (GPT-J, PaLM: arXiv:2204.02311)
s is the residual's scaling times model.residual_multiplier. No parameters; no multiply-adds are counted.
"""

from __future__ import annotations

from functools import partial

from eulerstack.plugins import Primitive
from eulerstack_mixers.declarations.words import number

NORM_SLOTS = {
    "sequential": {
        "pre": ("mixer_norm", "ffn_norm"),
        "post": ("mixer_norm", "ffn_norm"),
        "output": ("mixer_output_norm", "ffn_output_norm"),
        "sandwich": ("mixer_norm", "mixer_output_norm", "ffn_norm", "ffn_output_norm"),
    },
    "parallel": {
        "pre": ("mixer_norm",),
        "post": ("mixer_norm",),
        "output": ("mixer_output_norm", "ffn_output_norm"),
        "sandwich": ("mixer_norm", "mixer_output_norm", "ffn_output_norm"),
    },
}
FFN_SLOTS = ("ffn_norm", "ffn_output_norm")


def norm_slots(residual: str, position: str, has_ffn: bool = True) -> tuple[str, ...]:
    """Names of a layer's norms, in the order of their use; without a feed-forward block none that belongs to it.

    `pre` normalises a branch's input, `post` the sum after the branch, `output` the branch's output before the sum,
    `sandwich` both its input and its output. A parallel layer feeds both branches from one shared norm.
    """
    slots = NORM_SLOTS[residual][position]
    return slots if has_ffn else tuple(slot for slot in slots if slot not in FFN_SLOTS)


SCALING = number("Factor on each branch before its sum, times model.residual_multiplier.", 1.0)

RESIDUALS = (
    Primitive(
        name="sequential",
        kind="residual",
        summary="the mixer's result is added first, then the feed-forward block reads the sum",
        module="eulerstack_mixers.modules.residuals:SequentialResidual",
        reference="eulerstack_mixers.reference.residuals:sequential",
        inline={"scaling": SCALING},
        norm_slots=partial(norm_slots, "sequential"),
    ),
    Primitive(
        name="parallel",
        kind="residual",
        summary="mixer and feed-forward block read the same input and are added together",
        paper="arXiv:2204.02311",
        module="eulerstack_mixers.modules.residuals:ParallelResidual",
        reference="eulerstack_mixers.reference.residuals:parallel",
        inline={"scaling": SCALING},
        norm_slots=partial(norm_slots, "parallel"),
    ),
)
