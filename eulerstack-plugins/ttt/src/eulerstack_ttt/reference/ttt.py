"""Test-time training token by token, every inner gradient by automatic differentiation of the inner loss.

Source: Sun et al. 2024, arXiv:2407.04620, section 2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def ttt_layer(
    hidden_states: Tensor,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    n_heads: int,
    norm_eps: float = 1e-5,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model). `weights` are named as in the module, `params` as in the IR.

    Outer gradients flow through every inner step.
    """
    projected = (hidden_states @ weights[f"{name}_proj.weight"].T for name in "qkv")
    queries, keys, values = (each.unflatten(-1, (n_heads, -1)) for each in projected)
    gates = torch.sigmoid(hidden_states @ weights["rate_proj.weight"].T + weights["rate_proj.bias"])
    streams = (queries, keys, values, gates)
    outputs = [
        _head([stream[:, head] for stream in streams], _of_head(weights, head), params, norm_eps)
        for head in range(n_heads)
    ]
    joined = torch.cat(outputs, dim=-1)
    joined = functional.layer_norm(
        joined, joined.shape[-1:], weights["post_norm.weight"], weights["post_norm.bias"], norm_eps
    )
    return joined @ weights["o_proj.weight"].T


def _of_head(weights: Mapping[str, Tensor], head: int) -> dict[str, Tensor]:
    """The fast weights' beginning and the inner norm of one head, and the rates inside a mini-batch."""
    own = {name: value[head] for name, value in weights.items() if name.startswith("inner_")}
    return {**own, "token_rate": weights["token_rate"]}


def _predict(inputs: Tensor, fast: list[Tensor]) -> Tensor:
    """The inner model on one token: `fast` are weight, bias, and for an MLP weight, bias again."""
    outputs = inputs @ fast[0] + fast[1].squeeze(0)
    return outputs if len(fast) == 2 else functional.gelu(outputs, approximate="tanh") @ fast[2] + fast[3].squeeze(0)


def _head(streams: list[Tensor], weights: Mapping[str, Tensor], params: Mapping[str, Any], eps: float) -> Tensor:
    """q + LN(f(q)) of one head, (time, head_dim); `streams` are its queries, keys, values and gates."""
    queries, keys, values, gates = streams
    layers = 1 if params["inner_model"]["type"] == "linear" else 2
    start = [weights[f"inner_{word}.{layer}"] for layer in range(layers) for word in ("weights", "biases")]
    size, adamw = params["mini_batch"], params["inner_optimizer"] == "adamw"

    def norm(outputs: Tensor) -> Tensor:
        scale, shift = weights["inner_norm_weight"].squeeze(0), weights["inner_norm_bias"].squeeze(0)
        return functional.layer_norm(outputs, outputs.shape[-1:], scale, shift, eps)

    def gradients(fast: list[Tensor], token: int) -> tuple[Tensor, ...]:
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            # The inner gradient needs fast weights that ask for one, even where nobody asks for an outer gradient.
            fast = [weight if weight.requires_grad else weight.detach().requires_grad_() for weight in fast]
            error = norm(_predict(keys[token], fast)) - (values[token] - keys[token])
            return torch.autograd.grad(0.5 * error.square().sum(), fast, create_graph=outer)

    fast, summed, outputs = start, [torch.zeros_like(weight) for weight in start], []
    means, squares, count = list(summed), list(summed), 0
    for token in range(len(queries)):
        slot = token % size
        spread = (1.0 / (slot + 1) + weights["token_rate"][slot]).clamp(min=0.0)
        rate = params["inner_lr"] * gates[token] / (1.0 if adamw else queries.shape[-1])
        if size == 1:
            for _ in range(params["inner_steps_per_token"]):
                found, count = list(gradients(fast, token)), count + 1
                if adamw:
                    means = [0.9 * mean + 0.1 * each for mean, each in zip(means, found, strict=True)]
                    squares = [0.999 * square + 0.001 * each**2 for square, each in zip(squares, found, strict=True)]
                    found = [
                        mean / (1 - 0.9**count) / torch.sqrt(square / (1 - 0.999**count) + 1e-6) + 0.01 * weight
                        for mean, square, weight in zip(means, squares, fast, strict=True)
                    ]
                fast = [weight - spread * rate * each for weight, each in zip(fast, found, strict=True)]
            current = fast
        else:
            summed = [total + rate * each for total, each in zip(summed, gradients(fast, token), strict=True)]
            current = [weight - spread * total for weight, total in zip(fast, summed, strict=True)]
            if slot == size - 1:
                fast, summed = current, [torch.zeros_like(weight) for weight in start]
        outputs.append(queries[token] + norm(_predict(queries[token], current)))
    return torch.stack(outputs)
