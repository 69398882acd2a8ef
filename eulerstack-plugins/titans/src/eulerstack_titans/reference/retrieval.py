"""Retrieval memory token by token.

Source: Wu et al. 2022, arXiv:2203.08913, section 3
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eulerstack_titans.reference.neural_memory import unit


def retrieval(hidden_states: Tensor, weights: Mapping[str, Tensor], params: Mapping[str, Any], heads: int) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model). `weights` are named as in the module, `params` as in the IR."""
    queries, keys, values = (
        (hidden_states @ weights[f"{name}_proj.weight"].T).unflatten(-1, (heads, -1)) for name in "qkv"
    )
    outputs = []
    for place in range(len(hidden_states)):
        stored = range(max(0, place - params["slots"]), place)
        read = []
        for head in range(heads):
            if not stored:
                read.append(torch.zeros_like(values[0, head]))
                continue
            cosines = torch.stack([unit(queries[place, head]) @ unit(keys[other, head]) for other in stored])
            last = cosines.detach().sort(descending=True).values[: params["top_k"]][-1]
            near = [index for index, cosine in enumerate(cosines) if float(cosine.detach()) >= float(last) - 1e-5]
            shares = torch.softmax(weights["log_scale"][head].exp() * cosines[near], dim=0)
            read.append(sum(share * values[stored[index], head] for share, index in zip(shares, near, strict=True)))
        outputs.append(torch.cat(read))
    return torch.stack(outputs) @ weights["o_proj.weight"].T
