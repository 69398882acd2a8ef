"""No positions: order is known only through causality.

Source: Kazemnejad et al. 2023, arXiv:2305.19466
"""

from torch import nn


class NoPositions(nn.Module):
    """Adds nothing anywhere."""

    additive = False
    attention_bias = None
