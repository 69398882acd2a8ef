"""The recurrence of `vendor.toy.ema`, one token at a time."""

import torch


def naive_ema(inputs: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """h_t = decay ⊙ h_{t-1} + (1 - decay) ⊙ inputs_t, from h_0 = 0.

    Shapes: inputs (batch, time, d_model), decay (d_model) in (0, 1) -> (batch, time, d_model)
    """
    state = torch.zeros_like(inputs[:, 0])
    states = []
    for token in inputs.unbind(1):
        state = decay * state + (1 - decay) * token
        states.append(state)
    return torch.stack(states, dim=1)
