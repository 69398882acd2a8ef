"""Mixture-of-Depths, token by token.

Source: Raposo et al. 2024, arXiv:2404.02258, equation 1 and section 3.5
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def best_of(values: list[float], capacity: float) -> list[int]:
    """The places of the `capacity` share of the largest values, at least one, in their order."""
    number = max(1, int(len(values) * capacity + 0.5))
    return sorted(sorted(range(len(values)), key=lambda place: -values[place])[:number])


def gated(
    hidden_states: Tensor,
    weight: Tensor,
    body: Callable[[Tensor, list[int]], Tensor],
    capacity: float,
    router: str,
    training: bool,
) -> tuple[Tensor, Tensor]:
    """One sequence, (time, d_model) -> (time, d_model), and the loss that training adds, 0 otherwise.

    `weight` (d_model) is the router's; `body` is f, which is given (chosen, d_model) and the places of the chosen.
    """
    # Of several residual streams, (time, streams, d_model), the router reads the mean.
    read = hidden_states.mean(1) if hidden_states.ndim == 3 else hidden_states
    logits = [(token * weight).sum() for token in read]
    best = best_of([float(logit.detach()) for logit in logits], capacity)
    chosen = best if training and router == "top_k" else [i for i, z in enumerate(logits) if torch.sigmoid(z) > 0.5]
    rows = list(hidden_states)
    if chosen:
        for place, change in zip(chosen, body(hidden_states[chosen], chosen), strict=True):
            factor = logits[place] if router == "top_k" else torch.sigmoid(logits[place])
            rows[place] = rows[place] + factor * change
    loss = hidden_states.new_zeros(())
    for place, logit in enumerate(logits if training else []):
        share = torch.sigmoid(logit)
        loss = loss - torch.log(share if place in best else 1 - share) / len(logits)
    return torch.stack(rows), loss
