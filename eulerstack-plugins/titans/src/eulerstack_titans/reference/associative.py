"""Associative memory token by token.

Source: Yang et al. 2024, arXiv:2412.06464, equation 10
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from eulerstack_titans.reference.neural_memory import unit


def associative(hidden_states: Tensor, weights: Mapping[str, Tensor], params: Mapping[str, Any], heads: int) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model). `weights` are named as in the module, `params` as in the IR."""
    outputs = []
    matrices: list[Tensor | None] = [None] * heads
    for token in hidden_states:
        streams = [functional.silu(weights[f"{name}_proj.weight"] @ token).view(heads, -1) for name in "qkv"]
        gates = torch.sigmoid(weights["gate_proj.weight"] @ token + weights["gate_bias"]).view(-1, heads)
        read = []
        for head, (query, key, value) in enumerate(zip(*streams, strict=True)):
            matrix = matrices[head]
            if matrix is None:
                matrix = torch.zeros(len(key), len(value), dtype=key.dtype)
            if params["forget"]:
                matrix = (1 - gates[1, head]) * matrix
            error = value - matrix.T @ unit(key)
            matrix = matrix + params["inner_lr"] * gates[0, head] * torch.outer(unit(key), error)
            matrices[head] = matrix
            read.append(matrix.T @ unit(query))
        outputs.append(torch.cat(read))
    return torch.stack(outputs) @ weights["o_proj.weight"].T
