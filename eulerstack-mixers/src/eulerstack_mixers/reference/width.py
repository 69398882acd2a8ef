"""A layer at a width of its own, token by token.

Source: Nawrot et al. 2022, Hourglass, arXiv:2110.13711
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def projected(hidden_states: Tensor, weights: Mapping[str, Tensor], name: str, projection: str) -> Tensor:
    """One of the two projections, (time, width) -> (time, other width)."""
    if projection == "linear":
        return torch.stack([weights[f"{name}.weight"] @ token for token in hidden_states])
    if projection == "mlp":
        first, second = weights[f"{name}.in_proj.weight"], weights[f"{name}.out_proj.weight"]
        rows = []
        for token in hidden_states:
            inner = first @ token
            rows.append(second @ (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))))
        return torch.stack(rows)
    # One matrix a token, the present one's last.
    taps = weights[f"{name}.taps.weight"].split(hidden_states.shape[1], dim=1)
    rows = []
    for now in range(len(hidden_states)):
        row = 0 * (taps[-1] @ hidden_states[now])
        for back in range(min(len(taps), now + 1)):
            row = row + taps[-1 - back] @ hidden_states[now - back]
        rows.append(row)
    return torch.stack(rows)


def at_width(
    hidden_states: Tensor, weights: Mapping[str, Tensor], projection: str, layer: Callable[[Tensor], Tensor]
) -> Tensor:
    """x + up(layer(h) − h), h = down(x), for one sequence (time, d_model)."""
    inner = projected(hidden_states, weights, "down", projection)
    return hidden_states + projected(layer(inner) - inner, weights, "up", projection)
