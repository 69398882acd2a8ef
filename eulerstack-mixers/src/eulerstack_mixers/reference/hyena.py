"""The Hyena operator as explicit sums over earlier tokens, quadratic in time.

Source: Poli et al. 2023, arXiv:2302.10866, sections 3.1–3.3; form and constants of the authors' standalone operator
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def hyena_tap(lag: int, weights: Mapping[str, Tensor], filter_emb: int, decay: float, max_seq_len: int) -> Tensor:
    """The filters at one lag in tokens, (channels of all filters); zero from max_seq_len on."""
    output = weights["filter.output_weight"]
    if lag >= max_seq_len:
        return output.new_zeros(output.shape[0])
    time, turn, bands = lag / max(max_seq_len - 1, 1), 2 * math.pi * lag / max_seq_len, (filter_emb - 1) // 2
    steps = [1e-4 + (bands - 1 - 1e-4) * band / max(bands - 1, 1) for band in range(bands)]
    waves = [math.cos(step * turn) for step in steps] + [-math.sin(step * turn) for step in steps]
    state = output.new_tensor([time, *waves])
    frequency = weights["filter.frequency"]
    state = torch.sin(frequency * (weights["filter.input_weight"] @ state + weights["filter.input_bias"]))
    for weight, bias in zip(weights["filter.hidden_weight"], weights["filter.hidden_bias"], strict=True):
        state = torch.sin(frequency * (weight @ state + bias))
    slow, fast = math.log(100) / 1.5, math.log(100) / 0.3
    rates = torch.linspace(slow, fast, output.shape[0], dtype=output.dtype)
    return (output @ state) * torch.exp(-decay * time * rates)


def hyena(hidden_states: Tensor, weights: Mapping[str, Tensor], params: Mapping[str, Any], max_seq_len: int) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model).

    `weights` are named as in the module (`in_proj.weight`, …), `params` are those of the IR.
    """
    time, d_model = hidden_states.shape
    projected = hidden_states @ weights["in_proj.weight"].T + weights["in_proj.bias"]
    shaped = []
    for now in range(time):
        seen = range(max(0, now - params["short_conv"] + 1), now + 1)
        shaped.append(weights["short_bias"] + sum(weights["short_weight"][:, now - s] * projected[s] for s in seen))
    *gates, value = torch.stack(shaped).split(d_model, dim=-1)
    lags = [
        hyena_tap(lag, weights, params["filter_emb"], params["filter_decay"], max_seq_len).view(-1, d_model)
        for lag in range(time)
    ]
    for index, gate in enumerate(reversed(gates[1:])):
        gated = gate * value
        sums = [sum(lags[now - then][index] * gated[then] for then in range(now + 1)) for now in range(time)]
        value = torch.stack(sums) + weights["filter.skip"][index] * gated
    return (gates[0] * value) @ weights["out_proj.weight"].T + weights["out_proj.bias"]
