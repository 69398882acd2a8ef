"""Every memory computes what its naive recurrence computes, forward and backward, through every inner step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eulerstack_titans.reference.associative import associative
from eulerstack_titans.reference.neural_memory import neural_memory
from eulerstack_titans.reference.retrieval import retrieval

REFERENCES = {
    "neural_memory": neural_memory,
    "associative": lambda *given: associative(*given, heads=3),
    "retrieval": lambda *given: retrieval(*given, heads=3),
}


@pytest.mark.parametrize("time", [1, 37])
def test_outputs_and_all_gradients_are_those_of_the_recurrence(kind: str, time: int, tools: Any) -> None:
    memory, words = tools.lively(kind).double(), tools.KINDS[kind]
    hidden_states = torch.randn(2, time, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hidden_states.requires_grad_()
    weights, params = dict(memory.named_parameters()), tools.complete_params(words)
    actual = memory(hidden_states)
    expected = torch.stack([REFERENCES[words["type"]](row, weights, params) for row in hidden_states])
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    if kind.startswith("retrieval") and time == 1:
        assert not actual.detach().any()
        return
    direction = torch.randn(actual.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = {"hidden_states": hidden_states, **weights}
    found = torch.autograd.grad((actual * direction).sum(), list(wanted.values()))
    right = torch.autograd.grad((expected * direction).sum(), list(wanted.values()))
    for name, ours, theirs in zip(wanted, found, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert ours.abs().max() > 0 or time == 1, name


def test_the_recurrence_needs_no_outer_gradient(tools: Any) -> None:
    weights = {name: value.detach() for name, value in tools.lively("neural").named_parameters()}
    with torch.no_grad():
        outputs = neural_memory(torch.randn(5, 24), weights, tools.complete_params(tools.KINDS["neural"]))
    assert not outputs.requires_grad and torch.isfinite(outputs).all()
