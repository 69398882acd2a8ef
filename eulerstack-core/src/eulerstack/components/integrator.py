"""Integrators around any module, for use by hand; what the schedule's `integrator:` builds computes the same.

Shapes: (…) -> (…), whatever the body maps to its own shape
Source: Dehghani et al. 2018, arXiv:1807.03819 (one block again and again); Chen et al. 2018, arXiv:1806.07366
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from eulerstack.hf.integration import euler, integrate, runge_kutta_4

METHODS = {"euler": euler, "rk4": runge_kutta_4}


class DiscreteIntegrator(nn.Module):
    """Applies `body` `steps` times: one module with the same weights each time, or one module a step.

    Further arguments of a call reach the body each time; of what it returns, the first part is the state.
    Errors: ValueError when there are no steps, or not as many modules as steps.
    """

    def __init__(self, body: nn.Module | Sequence[nn.Module], steps: int):
        super().__init__()
        _check_steps(steps)
        if isinstance(body, (Sequence, nn.ModuleList)):
            if len(body) != steps:
                raise ValueError(f"{len(body)} modules for {steps} steps: give one module, or one a step")
            body = nn.ModuleList(body)
        self.body = body
        self.steps = steps

    def forward(self, state: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        for step in range(self.steps):
            body: Any = self.body
            if isinstance(body, nn.ModuleList):
                body = body[step]
            state = _state(body(state, *args, **kwargs))
        return state


class ODEIntegrator(nn.Module):
    """Integrates dx/dt = body(x) − x from t = 0 to 1 in `steps` steps of 1 / steps, with the same weights throughout.

    `method` is "euler" (one evaluation of the body a step) or "rk4" (four). A body with a residual, x + g(x), makes
    this dx/dt = g(x). Further arguments of a call reach the body each time; of what it returns, the first part is the
    state.
    Errors: ValueError when there are no steps, or no such method.
    """

    def __init__(self, body: nn.Module, steps: int, method: str = "rk4"):
        super().__init__()
        _check_steps(steps)
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}, only: {', '.join(METHODS)}")
        self.body, self.steps, self.method = body, steps, method

    def forward(self, state: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        def block(position: torch.Tensor, evaluation: int) -> torch.Tensor:
            return _state(self.body(position, *args, **kwargs))

        return integrate(METHODS[self.method], block, state, self.steps)


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, not {steps!r}")


def _state(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
