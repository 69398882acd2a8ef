"""Integration of dx/dt = f(x) from t = 0 to 1 in steps of equal length, where f is what a block changes: block(x) − x.

Shapes: a state of any shape -> one of the same
Cost:   steps evaluations of the block with Euler's method, 4 · steps with the classic Runge-Kutta method
Source: Chen et al. 2018, arXiv:1806.07366 (a block with a residual as a step of an ODE); the classic method, of weights
        1/6, 1/3, 1/3, 1/6: Kutta 1901
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName

# (state, index of the evaluation) -> what stands there.
Evaluated = Callable[[torch.Tensor, int], torch.Tensor]


def euler(derivative: Evaluated, state: torch.Tensor, steps: int) -> torch.Tensor:
    """The error falls as 1 / steps."""
    for step in range(steps):
        state = state + derivative(state, step) / steps
    return state


def runge_kutta_4(derivative: Evaluated, state: torch.Tensor, steps: int) -> torch.Tensor:
    """The error falls as 1 / steps⁴."""
    for step in range(steps):
        evaluation = 4 * step
        first = derivative(state, evaluation)
        second = derivative(state + first / (2 * steps), evaluation + 1)
        third = derivative(state + second / (2 * steps), evaluation + 2)
        fourth = derivative(state + third / steps, evaluation + 3)
        state = state + (first + 2 * second + 2 * third + fourth) / (6 * steps)
    return state


def integrate(
    method: Callable[[Evaluated, torch.Tensor, int], torch.Tensor], block: Evaluated, state: torch.Tensor, steps: int
) -> torch.Tensor:
    """The state at t = 1; `block` is given the index of the evaluation too.

    Between evaluations the state is float32 at least, because a short step is less than half precision can add.
    """
    precise = torch.promote_types(state.dtype, torch.float32)

    def derivative(position: torch.Tensor, evaluation: int) -> torch.Tensor:
        given = position.to(state.dtype)
        return block(given, evaluation).to(precise) - given.to(precise)

    return method(derivative, state.to(precise), steps).to(state.dtype)


class ThoughtNorm(nn.Module):
    """x / rms(x) · w, in float32 at least."""

    def __init__(self, config: Any):
        super().__init__()
        self.eps = config.architecture["model"]["norm_eps"]
        self.weight = nn.Parameter(torch.empty(config.hidden_size))

    def initialize(self, initializer_range: float) -> None:
        initialization.ones_(self.weight)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        weight = self.weight.to(precise)
        return nn.functional.rms_norm(hidden_states.to(precise), weight.shape, weight, self.eps).to(hidden_states.dtype)


# What the last state of a stage passes through before it is handed on, by the stage's word `output`.
STAGE_OUTPUTS: ByName = {
    "hidden": ThoughtNorm,
}


class StageOutput(nn.Module):
    """What a stage that evaluates layers several times hands on of its last state, (batch, time, d_model).

    token   the state itself, as a layer does: it stays in the stream from which tokens are predicted
    hidden  the state as a thought, behind a norm of its own: what latent reasoning goes on from is not the stream but
            the hidden state that a model ends with, which a norm has brought to the scale of an embedding

    Source: Hao et al. 2024, arXiv:2412.06769
    """

    def __init__(self, config: Any, output: str):
        super().__init__()
        self.norm: Any = STAGE_OUTPUTS[output](config) if output in STAGE_OUTPUTS else None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states if self.norm is None else self.norm(hidden_states)
