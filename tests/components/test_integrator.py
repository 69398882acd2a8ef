"""Integrators by hand: on a linear ODE whose solution is known, around modules of any kind."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eulerstack.components.integrator import DiscreteIntegrator, ODEIntegrator  # noqa: E402

MATRIX = torch.tensor([[-0.4, 1.1], [-0.9, 0.2]], dtype=torch.float64)
START = torch.tensor([[1.0, -2.0], [0.3, 0.7]], dtype=torch.float64)


class Linear(nn.Module):
    """x + A x, whose ODE dx/dt = A x has the solution exp(A) x."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(MATRIX.clone())
        self.calls = 0

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return state + state @ self.matrix.T


@pytest.mark.parametrize(("method", "order", "calls"), [("euler", 1, 1), ("rk4", 4, 4)])
def test_the_error_falls_with_the_order_of_the_method(method: str, order: int, calls: int) -> None:
    solution = START @ torch.linalg.matrix_exp(MATRIX).T
    errors = []
    for steps in (8, 16, 32, 64):
        body = Linear()
        reached = ODEIntegrator(body, steps=steps, method=method)(START)
        assert body.calls == calls * steps
        errors.append(float((reached - solution).detach().norm()))
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert errors[-1] < {"euler": 0.05, "rk4": 1e-8}[method]


def test_one_step_is_the_textbook_formula() -> None:
    one, a = torch.eye(2, dtype=torch.float64), MATRIX
    expected = {"euler": one + a, "rk4": one + a + a @ a / 2 + a @ a @ a / 6 + a @ a @ a @ a / 24}
    for method, growth in expected.items():
        torch.testing.assert_close(ODEIntegrator(Linear(), 1, method)(START), START @ growth.T)


def test_weights_are_shared_and_learn_from_every_evaluation() -> None:
    ode = ODEIntegrator(Linear(), steps=3)
    assert sum(parameter.numel() for parameter in ode.parameters()) == 4
    assert torch.autograd.gradcheck(lambda matrix: torch.func.functional_call(ode, {"body.matrix": matrix}, (START,)),
                                    (MATRIX.clone().requires_grad_(),))  # fmt: skip


def test_a_module_is_applied_with_the_same_weights_or_one_after_another() -> None:
    body = Linear()
    shared = DiscreteIntegrator(body, steps=4)
    assert [name for name, _ in shared.named_parameters()] == ["body.matrix"]
    torch.testing.assert_close(shared(START), START @ torch.linalg.matrix_power(torch.eye(2) + MATRIX, 4).T)
    first, second = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    separate = DiscreteIntegrator([first, second], steps=2)
    assert len(list(separate.parameters())) == 4
    assert torch.equal(separate(START), second(first(START)))


def test_further_arguments_reach_the_body_and_the_state_is_what_it_returns_first() -> None:
    class Shifted(nn.Module):
        def forward(self, state: torch.Tensor, shift: float, *, scale: float) -> tuple[torch.Tensor, str]:
            return state + scale * shift, "weights"

    for integrator in (
        DiscreteIntegrator(Shifted(), 4),
        ODEIntegrator(Shifted(), 4),
        ODEIntegrator(Shifted(), 4, "euler"),
    ):
        expected = START + (4 if isinstance(integrator, DiscreteIntegrator) else 1) * 1.5
        torch.testing.assert_close(integrator(START, 0.5, scale=3.0), expected)


def test_in_half_precision_many_short_steps_still_arrive() -> None:
    class Growth(nn.Module):
        def forward(self, state: torch.Tensor) -> torch.Tensor:
            return 2 * state

    reached = ODEIntegrator(Growth(), steps=1000, method="euler")(torch.ones(1, dtype=torch.bfloat16))
    assert reached.dtype == torch.bfloat16 and float(reached) == pytest.approx(math.e, rel=0.01)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_are_counted(steps: object) -> None:
    for kind in (DiscreteIntegrator, ODEIntegrator):
        with pytest.raises(ValueError, match="positive integer"):
            kind(Linear(), steps)


def test_what_can_not_be_integrated_is_refused() -> None:
    with pytest.raises(ValueError, match="euler, rk4"):
        ODEIntegrator(Linear(), 2, method="rk5")
    with pytest.raises(ValueError, match="2 modules for 3 steps"):
        DiscreteIntegrator([Linear(), Linear()], 3)
