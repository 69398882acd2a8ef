"""The solution of dx/dt = A x at t = 1, by the series of the exponential."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_solution(state: Tensor, matrix: Tensor, terms: int = 40) -> Tensor:
    """exp(A) x for `state` (…, width) and `matrix` (width, width)."""
    total, term = state, state
    for power in range(1, terms):
        term = torch.einsum("ij,...j->...i", matrix, term) / power
        total = total + term
    return total
