"""What a declaration needs to know of maximal update parametrization (µP).

Source: Yang et al. 2022, Tensor Programs V, arXiv:2203.03466, definition 4.1 and appendix B.1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# 8 / width is 1 / √width at a width of 64, so heads of that width are scaled alike in both parametrizations.
MUP_ATTENTION_FACTOR = 8.0


def attention_scale(width: int, context: Mapping[str, Any]) -> float:
    """The factor on the product of a query and a key of `width` channels.

    1 / √width, or 8 / width under µP, where queries and keys that have learned are correlated and their product grows
    with the width. `context` is what `Primitive.resolve` gets as its second argument.
    """
    if context.get("training_hints", {}).get("scaling", {}).get("parametrization") == "mup":
        return MUP_ATTENTION_FACTOR / width
    return width**-0.5
