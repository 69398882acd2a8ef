"""The recurrences of Mamba-1 and Mamba-2, one token at a time, in any precision."""

import torch
from torch.nn.functional import pad, silu


def selective_state_space(
    inputs: torch.Tensor,
    steps: torch.Tensor,
    rates: torch.Tensor,
    b_vectors: torch.Tensor,
    c_vectors: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h_t = exp(Δ_t A) ⊙ h_{t−1} + Δ_t x_t B_tᵀ and y_t = h_t C_t; returns all y and the last h.

    Shapes: inputs x and steps Δ (batch, time, channels); rates A (channels, d_state); B, C (batch, time, channels or 1,
    d_state); state (batch, channels, d_state). Mamba-2 is the case of equal Δ and A in the channels of a head, and of
    a B and C for each.
    """
    outputs = []
    for x, step, b, c in zip(*(each.unbind(1) for each in (inputs, steps, b_vectors, c_vectors)), strict=True):
        state = torch.exp(step.unsqueeze(-1) * rates) * state + (step * x).unsqueeze(-1) * b
        outputs.append((state * c).sum(-1))
    return torch.stack(outputs, dim=1), state


def short_convolution(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """silu(Σ_k w_k x_{t−k} + bias) for each channel.

    Shapes: inputs (batch, time, channels), weight (channels, 1, width) whose last tap weighs the current token
    """
    width, time = weight.shape[-1], inputs.shape[1]
    window = pad(inputs, (0, 0, width - 1, 0))
    outputs = sum(window[:, tap : tap + time] * weight[:, 0, tap] for tap in range(width))
    return silu(outputs if bias is None else outputs + bias)
