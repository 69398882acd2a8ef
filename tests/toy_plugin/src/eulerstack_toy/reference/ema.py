"""The mixer `vendor.toy.ema`, one token at a time."""

from collections.abc import Mapping

import torch


def naive_ema(hidden_states: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """One sequence, (time, d_model) -> (time, d_model); h begins at 0."""
    decay = 1 / (1 + torch.exp(-weights["decay_logit"]))
    average = torch.zeros_like(hidden_states[0])
    outputs = []
    for token in hidden_states:
        average = decay * average + (1 - decay) * (weights["in_proj.weight"] @ token)
        gate = weights["gate_proj.weight"] @ token
        outputs.append(weights["out_proj.weight"] @ (average * gate / (1 + torch.exp(-gate))))
    return torch.stack(outputs)
