"""Steps of equal length, which need no package, against torchdiffeq's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eulerstack.components.integrator import ODEIntegrator
from eulerstack_ode.modules.adaptive import load_odeint

pytest.importorskip("torchdiffeq")


class Body(torch.nn.Module):
    """A small nonlinear block with a residual."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(4, 4, generator=generator, dtype=torch.float64))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state + torch.tanh(state @ self.weight)


def theirs(body: Body, start: torch.Tensor, method: str, steps: int) -> Any:
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return load_odeint()(lambda time, state: body(state) - state, start, times, method=method)[-1]


def test_eulers_method_is_torchdiffeqs_forward_and_backward() -> None:
    body = Body()
    start = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    results = (ODEIntegrator(body, 5, "euler")(start), theirs(body, start, "euler", 5))
    torch.testing.assert_close(*results, atol=1e-12, rtol=1e-12)
    for first, second in zip(*(torch.autograd.grad(each.sin().sum(), (start, body.weight)) for each in results),
                             strict=True):  # fmt: skip
        torch.testing.assert_close(first, second, atol=1e-11, rtol=1e-11)


def test_the_classic_method_nears_the_solution_as_torchdiffeqs_variant_does() -> None:
    """torchdiffeq's rk4 has other weights (the 3/8 rule): another error of the same order, one solution."""
    body = Body()
    start = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        solution = theirs(body, start, "dopri8", 1)
        fine = theirs(body, start, "rk4", 256)
        torch.testing.assert_close(ODEIntegrator(body, 256)(start), fine, atol=1e-10, rtol=0)
        errors = [float((ODEIntegrator(body, steps)(start) - fine).norm()) for steps in (4, 8)]
        other = [float((theirs(body, start, "rk4", steps) - fine).norm()) for steps in (4, 8)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3) and other[0] / other[1] == pytest.approx(16, rel=0.3)
    torch.testing.assert_close(solution, fine, atol=1e-5, rtol=0)
