"""Stages that apply layers several times: independent copies, or one layer as the right side of an ODE.

`evaluate(hidden_states, layer, evaluation)` is what a layer of the stage makes of a state, residual included; each
evaluation has a cache slot of its own, in which every token finds the states of earlier tokens at that same evaluation.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
State:  that of the layers, once for each evaluation
Cost:   `steps` evaluations, 4 · steps with ode_rk4; with `output: hidden` a norm of d_model parameters
Source: Dehghani et al. 2018, arXiv:1807.03819; Chen et al. 2018, arXiv:1806.07366; thoughts, which are states behind a
        norm: Hao et al. 2024, arXiv:2412.06769
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eulerstack.hf.integration import StageOutput, euler, integrate, runge_kutta_4

Evaluate = Callable[[torch.Tensor, int, int], torch.Tensor]


class DiscreteSteps(nn.Module):
    """One layer after another."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps = params["steps"]
        self.output = StageOutput(config, params["output"])

    def forward(self, hidden_states: torch.Tensor, evaluate: Evaluate) -> torch.Tensor:
        for step in range(self.steps):
            hidden_states = evaluate(hidden_states, step, 0)
        return self.output(hidden_states)


class EulerSteps(nn.Module):
    """Euler's method on one layer: x ← x + (layer(x) − x) / steps."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps = params["steps"]
        self.output = StageOutput(config, params["output"])

    def forward(self, hidden_states: torch.Tensor, evaluate: Evaluate) -> torch.Tensor:
        def block(state: torch.Tensor, evaluation: int) -> torch.Tensor:
            return evaluate(state, 0, evaluation)

        hidden_states = integrate(euler, block, hidden_states, self.steps)
        return self.output(hidden_states)


class RungeKuttaSteps(nn.Module):
    """The classic Runge-Kutta method on one layer."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.steps = params["steps"]
        self.output = StageOutput(config, params["output"])

    def forward(self, hidden_states: torch.Tensor, evaluate: Evaluate) -> torch.Tensor:
        def block(state: torch.Tensor, evaluation: int) -> torch.Tensor:
            return evaluate(state, 0, evaluation)

        hidden_states = integrate(runge_kutta_4, block, hidden_states, self.steps)
        return self.output(hidden_states)
