"""The layer computes what the naive recurrence computes, forward and backward, through every inner step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from eulerstack_ttt.reference.ttt import ttt_layer

CASES: dict[str, dict[str, Any]] = {
    "linear": {"mini_batch": 4},
    "linear-one-mini-batch": {"mini_batch": 16},
    "linear-online": {"mini_batch": 1},
    "mlp": {"inner_model": {"type": "mlp", "hidden": 9}, "mini_batch": 4, "inner_lr": 0.5},
    "mlp-online": {"inner_model": {"type": "mlp", "hidden": 3}, "mini_batch": 1},
    "linear-steps": {"inner_steps_per_token": 3},
    "mlp-steps": {"inner_model": {"type": "mlp", "hidden": 9}, "inner_steps_per_token": 2},
    "linear-adamw": {"inner_optimizer": "adamw", "inner_lr": 0.02},
    "mlp-adamw-steps": {
        "inner_model": {"type": "mlp", "hidden": 9},
        "inner_optimizer": "adamw",
        "inner_steps_per_token": 2,
        "inner_lr": 0.02,
    },
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
@pytest.mark.parametrize("time", [1, 13])
def test_outputs_and_all_gradients_are_those_of_the_recurrence(
    words: dict[str, Any], time: int, lively_layer: Callable, params: Callable
) -> None:
    layer = lively_layer(**words).double()
    hidden_states = torch.randn(2, time, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hidden_states.requires_grad_()
    weights = dict(layer.named_parameters())
    actual = layer(hidden_states)
    expected = torch.stack([ttt_layer(row, weights, params(**words), n_heads=3) for row in hidden_states])
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(actual.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = {"hidden_states": hidden_states, **weights}
    found = torch.autograd.grad((actual * direction).sum(), list(wanted.values()))
    right = torch.autograd.grad((expected * direction).sum(), list(wanted.values()))
    for name, ours, theirs in zip(wanted, found, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert name == "token_rate" or ours.abs().max() > 0, name


def test_the_recurrence_needs_no_outer_gradient(lively_layer: Callable, params: Callable) -> None:
    words = CASES["mlp"]
    weights = {name: value.detach() for name, value in lively_layer(**words).named_parameters()}
    with torch.no_grad():
        outputs = ttt_layer(torch.randn(5, 24), weights, params(**words), n_heads=3)
    assert not outputs.requires_grad and torch.isfinite(outputs).all()
