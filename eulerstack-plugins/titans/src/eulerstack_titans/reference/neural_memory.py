"""Neural memory token by token, every inner gradient by automatic differentiation of the inner loss.

Source: Behrouz et al. 2025, arXiv:2501.00663, equations 8 to 15
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def unit(vector: Tensor) -> Tensor:
    """A vector of length 1."""
    return vector / torch.sqrt((vector * vector).sum() + 1e-6)


def network(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    """M on one token."""
    outputs = inputs @ weights[0]
    for weight in weights[1:]:
        outputs = functional.gelu(outputs) @ weight
    return outputs


def neural_memory(hidden_states: Tensor, weights: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model). `weights` are named as in the module, `params` as in the IR.

    Outer gradients flow through every inner step.
    """
    memory = [weights[f"inner_weights.{layer}"] for layer in range(params["depth"])]
    outputs = []
    if not params["update_at_inference"]:
        for token in hidden_states:
            outputs.append(network(unit(functional.silu(weights["q_proj.weight"] @ token)), memory))
        return torch.stack(outputs) @ weights["o_proj.weight"].T
    surprise, anchor = [torch.zeros_like(weight) for weight in memory], memory
    for place, token in enumerate(hidden_states):
        query, key, value = (functional.silu(weights[f"{name}_proj.weight"] @ token) for name in "qkv")
        gates = list(torch.sigmoid(weights["gate_proj.weight"] @ token + weights["gate_bias"]))
        rate = params["inner_lr"] * gates.pop(0)
        momentum = gates.pop(0) if params["momentum"] else 0.0
        forget = gates.pop(0) if params["forget"] else 0.0
        if place % params["mini_batch"] == 0:
            anchor = memory
        gradients = _gradients(anchor, unit(key), value)
        surprise = [momentum * each - rate * found for each, found in zip(surprise, gradients, strict=True)]
        memory = [(1 - forget) * weight + each for weight, each in zip(memory, surprise, strict=True)]
        outputs.append(network(unit(query), memory))
    return torch.stack(outputs) @ weights["o_proj.weight"].T


def _gradients(memory: list[Tensor], key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        # The inner gradient needs weights that ask for one, even where nobody asks for an outer gradient.
        memory = [weight if weight.requires_grad else weight.detach().requires_grad_() for weight in memory]
        loss = (network(key, memory) - value).square().sum()
        return torch.autograd.grad(loss, memory, create_graph=outer)
