"""The adaptive stage: the solution of its ODE, its bound on steps, its gradients, and that it refuses a cache."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack_ode.declarations.adaptive import EVALUATIONS
from eulerstack_ode.modules.adaptive import AdaptiveSteps
from eulerstack_ode.reference.linear import linear_solution
from tests.model.mixers.integrators import stage, staged
from tests.model.specs import built, tokens

pytest.importorskip("torchdiffeq")
MATRIX = torch.tensor([[-0.4, 3.1], [-2.9, 0.2]], dtype=torch.float64)
START = torch.tensor([[[1.0, -2.0], [0.3, 0.7]]], dtype=torch.float64)
TIGHT = {"rtol": 1e-8, "atol": 1e-9}


class Counted:
    """x + A x, and how often it was asked for."""

    def __init__(self, matrix: torch.Tensor = MATRIX):
        self.matrix, self.calls = matrix, 0

    def __call__(self, state: torch.Tensor, layer: int, evaluation: int) -> torch.Tensor:
        self.calls += 1
        return state + state @ self.matrix.T


def integrator(steps: int, method: str = "dopri5", rtol: float = 1e-8, atol: float = 1e-9) -> AdaptiveSteps:
    params = {"steps": steps, "method": method, "rtol": rtol, "atol": atol, "output": "token"}
    return AdaptiveSteps(None, params)


def adaptive(steps: int = 8, output: str = "token", **block: Any) -> dict[str, Any]:
    return staged("near", stage("ode_adaptive", steps, output=output, ode_adaptive=block), "decoder")


@pytest.mark.parametrize("method", EVALUATIONS)
def test_it_reaches_the_solution_of_a_linear_ode(method: str) -> None:
    tolerance = 1e-6 if EVALUATIONS[method] > 2 else 1e-4
    reached = integrator(100_000, method, rtol=tolerance, atol=tolerance)(START, Counted())
    torch.testing.assert_close(reached, linear_solution(START, MATRIX), atol=100 * tolerance, rtol=0)
    torch.testing.assert_close(linear_solution(START, MATRIX), START @ torch.linalg.matrix_exp(MATRIX).T)


def test_a_tighter_tolerance_takes_more_evaluations_and_comes_closer() -> None:
    found = []
    for tolerance in (1e-2, 1e-5, 1e-8):
        body = Counted()
        reached = integrator(1000, rtol=tolerance, atol=tolerance)(START, body)
        found.append((body.calls, float((reached - linear_solution(START, MATRIX)).norm())))
    calls, errors = zip(*found, strict=True)
    assert calls[0] < calls[1] < calls[2] and errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("method", EVALUATIONS)
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps_bound_the_evaluations_whatever_the_tolerance(method: str, steps: int) -> None:
    body = Counted()
    integrator(steps, method, rtol=1e-14, atol=1e-14)(START, body)
    assert body.calls == 1 + steps * EVALUATIONS[method]


def test_gradients_are_those_of_the_solution() -> None:
    matrix = MATRIX.clone().requires_grad_()
    start = START.clone().requires_grad_()
    reached = integrator(1000, rtol=1e-9, atol=1e-10)(start, Counted(matrix))
    exact = linear_solution(start, matrix)
    for ours, theirs in zip(*(torch.autograd.grad(each.sin().sum(), (matrix, start)) for each in (reached, exact)),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_stage_reaches_what_many_fixed_steps_reach() -> None:
    ids = tokens(batch=1, time=6)
    spec, fixed = staged(stage("ode_adaptive", 500, ode_adaptive=TIGHT)), staged(stage("ode_rk4", 100))
    models = [built(each).double() for each in (spec, fixed)]
    with torch.no_grad():
        first, second = (model(ids, use_cache=False).logits for model in models)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_past_depends_on_the_future_by_the_tolerance_alone() -> None:
    ids = tokens()
    altered = ids.clone()
    altered[:, 11] = (altered[:, 11] + 1) % 53
    model = built(adaptive(200, **TIGHT)).double()
    before, after = model(ids).logits, model(altered).logits
    assert (before[:, :11] - after[:, :11]).abs().max() < 1e-5
    assert (before[:, 11] - after[:, 11]).abs().max() > 1e-3
    torch.testing.assert_close(model(ids[:1]).logits, before[:1], atol=1e-5, rtol=0)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), ids), 1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, 3:], before, atol=1e-5, rtol=0)


def test_training_works_with_and_without_checkpointing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = built(adaptive(4, output="hidden")).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(tokens(), labels=tokens()).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_a_cache_is_refused_and_generation_recomputes() -> None:
    model = built(adaptive(4))
    ids = tokens(time=5)
    assert model.config.use_cache is False
    with torch.no_grad():
        assert model(ids).past_key_values is None
        with pytest.raises(ValueError, match="use_cache=False"):
            model(ids, use_cache=True)
        with pytest.raises(ValueError, match="use_cache=False"):
            model.generate(ids, max_new_tokens=2, use_cache=True, pad_token_id=0)
        generated = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
        expected = ids
        for _ in range(6):
            expected = torch.cat((expected, model(expected).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(generated, expected)


def test_without_torchdiffeq_a_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match="pip install torchdiffeq"):
        es.compile_to_hf_model(es.normalize_to_ir(adaptive()))


@torch.no_grad()
def test_the_solver_works_in_float32_between_evaluations_in_bfloat16() -> None:
    spec = adaptive(4)
    spec["model"]["dtype"] = "bfloat16"
    model = built(spec)
    exact = built(spec).float()
    exact.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    ids = tokens()
    logits, reference = model(ids).logits, exact(ids).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - reference).norm() / reference.norm() < 0.05
