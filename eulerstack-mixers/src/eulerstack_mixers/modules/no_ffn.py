"""No feed-forward block: the layer is its mixer alone.

Cost:   none, and none of the layer's norms that stand around a feed-forward block
Source: Gu & Dao 2023, arXiv:2312.00752, fig. 3, whose block takes the place of both
"""

from typing import Any

from torch import nn


class NoFFN(nn.Module):
    """Stands where a layer has no feed-forward block; it is never called."""

    absent = True

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
