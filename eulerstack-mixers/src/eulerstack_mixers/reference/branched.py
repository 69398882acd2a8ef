"""Mixers side by side, one token at a time.

Source: see modules/branched.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def branched(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    branches: Mapping[str, Callable[[Tensor], Tensor]],
) -> Tensor:
    """`hidden_states` (time, d_model) -> (time, d_model); `branches` compute whole sequences, by their names."""
    selector = params["selector"]
    count = selector["top_k"] if selector["type"] == "top_k" else len(branches)
    outputs = [branches[name](hidden_states) for name in sorted(branches)]
    mixed = []
    for time, state in enumerate(hidden_states):
        logits = (weights["selector.weight"] @ state).tolist()
        best = sorted(range(len(logits)), key=lambda index: -logits[index])[:count]
        exponentials = torch.exp(weights["selector.weight"] @ state)
        mixed.append(sum(exponentials[index] / exponentials.sum() * outputs[index][time] for index in best))
    return torch.stack(mixed)
