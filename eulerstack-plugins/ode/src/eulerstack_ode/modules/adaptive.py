"""A layer as the right side of an ODE, dx/dt = layer(x) − x from t = 0 to 1, in steps as long as the error allows.

A step's error is estimated by an embedded method of lower order. Where it exceeds atol + rtol · |x| in any channel of
any token, the step is tried again at a shorter length, but never below 1 / steps: a step of that length is taken as it
is. So there are at most `steps` steps, and each is as good as the tolerance unless all of them are used up.

All tokens of a batch take the same steps. Their number depends on all of them, so a result is that of the ODE, which
never looks ahead, to within the tolerance, and not to the last bit.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
State:  none: a cache would need a slot for every evaluation, and how many there are is not known
Cost:   1 + steps · (evaluations of a step of the method) evaluations of the layer, and those of rejected attempts
Errors: ImportError when torchdiffeq is not installed
Source: Chen et al. 2018, arXiv:1806.07366; dopri5: Dormand & Prince 1980; bosh3: Bogacki & Shampine 1989
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eulerstack.hf.integration import StageOutput

# So that as many shortest steps as there may be reach the end in spite of rounding.
BEYOND = 1e-9


def load_odeint() -> Any:
    """torchdiffeq's solver. Its tables are tensors made at import, and models are made on the device `meta`."""
    try:
        with torch.device("cpu"):
            from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError(
            "ode_adaptive computes with torchdiffeq, which is missing: pip install torchdiffeq"
        ) from error
    return odeint


def largest(errors: torch.Tensor) -> torch.Tensor:
    """The largest of all errors, in units of the tolerance."""
    return errors.abs().max()


class AdaptiveSteps(nn.Module):
    """Steps of torchdiffeq on one layer; between evaluations the state is float32 at least."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.odeint = load_odeint()
        self.steps, self.method = params["steps"], params["method"]
        self.rtol, self.atol = params["rtol"], params["atol"]
        self.output = StageOutput(config, params["output"])

    def forward(
        self, hidden_states: torch.Tensor, evaluate: Callable[[torch.Tensor, int, int], torch.Tensor]
    ) -> torch.Tensor:
        dtype = hidden_states.dtype
        precise = torch.promote_types(dtype, torch.float32)
        shortest = (1 + BEYOND) / self.steps

        def derivative(time: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            given = state.to(dtype)
            return evaluate(given, 0, 0).to(precise) - given.to(precise)

        times = torch.tensor([0.0, 1.0], dtype=torch.float64, device=hidden_states.device)
        # The last step ends at 1: beyond it, the state there would be interpolated, at a lower order.
        options = {"min_step": shortest, "first_step": shortest, "norm": largest, "step_t": times[1:]}
        states = self.odeint(
            derivative,
            hidden_states.to(precise),
            times,
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            options=options,
        )
        return self.output(states[-1].to(dtype))
