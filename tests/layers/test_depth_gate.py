"""The depth gate by hand: which tokens it lets in, what it adds to them, and what it adds to the loss."""

from __future__ import annotations

import pytest
import torch

from eulerstack.components.depth_gate import DepthGate
from eulerstack.hf.depth_gate import best_share, tokens_of_share
from eulerstack_mixers.reference.depth_gating import gated

ROUTERS = ("top_k", "learned_gate")


def running_mean(states: torch.Tensor) -> torch.Tensor:
    """A causal body, (…, time, d_model): each token sees itself and those before it."""
    time = states.shape[-2]
    return torch.tanh(states).cumsum(-2) / torch.arange(1, time + 1, dtype=states.dtype)[:, None]


def gate_of(router: str, capacity: float = 0.5, d_model: int = 12) -> DepthGate:
    torch.manual_seed(3)
    return DepthGate(d_model, capacity, router).double()


def test_the_gate_works_as_the_tutorial_writes_it() -> None:
    gate = DepthGate(d_model=768, capacity=0.5, router="top_k")
    seen = []
    x = torch.randn(2, 10, 768)
    y = gate(x, body_fn=lambda states: seen.append(states.shape) or torch.ones_like(states))
    assert seen == [(2, 5, 768)] and y.shape == x.shape
    assert ((y != x).any(-1).sum(1) == 5).all()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("capacity", [0.1, 0.5, 1.0])
def test_output_loss_and_gradients_are_those_of_the_naive_loop(router: str, training: bool, capacity: float) -> None:
    gate = gate_of(router, capacity).train(training)
    x = torch.randn(3, 11, 12, dtype=torch.float64, requires_grad=True)
    y = gate(x, running_mean)
    total = y.square().sum() + (0.0 if gate.aux_loss is None else 7 * gate.aux_loss)
    gradients = torch.autograd.grad(total, (x, gate.router.weight))
    rows = [gated(row, gate.router.weight[0], lambda s, _: running_mean(s), capacity, router, training) for row in x]
    expected = torch.stack([row for row, _ in rows])
    losses = torch.stack([loss for _, loss in rows])
    torch.testing.assert_close(y, expected)
    if training:
        torch.testing.assert_close(gate.aux_loss, losses.mean())
    else:
        assert gate.aux_loss is None
    total = expected.square().sum() + 7 * losses.mean() * training
    for own, naive in zip(gradients, torch.autograd.grad(total, (x, gate.router.weight)), strict=True):
        torch.testing.assert_close(own, naive)


def test_top_k_takes_its_share_of_every_sequence_and_no_padding() -> None:
    logits = torch.randn(2, 12)
    kept = torch.ones(2, 12, dtype=torch.bool)
    kept[1, :5] = False
    sequences = torch.tensor([[0] * 4 + [1] * 8, [0] * 6 + [1] * 6])
    best = best_share(logits, 0.4, kept, sequences)
    assert not best[1, :5].any()
    for row, first, last, number in ((0, 0, 4, 2), (0, 4, 12, 3), (1, 5, 6, 1), (1, 6, 12, 2)):
        part = logits[row, first:last]
        assert set(best[row, first:last].nonzero().flatten().tolist()) == set(part.topk(number).indices.tolist())


def test_a_share_is_at_least_one_token_and_at_most_all() -> None:
    lengths = torch.arange(6)
    assert tokens_of_share(lengths, 0.3).tolist() == [0, 1, 1, 1, 1, 2]
    assert tokens_of_share(lengths, 1.0).tolist() == lengths.tolist()


@pytest.mark.parametrize("router", ROUTERS)
def test_in_evaluation_a_token_decides_from_itself_alone(router: str) -> None:
    gate = gate_of(router).eval()
    x = torch.randn(1, 9, 12, dtype=torch.float64)
    y = gate(x, running_mean)
    for length in range(1, 10):
        torch.testing.assert_close(gate(x[:, :length], running_mean), y[:, :length], rtol=0, atol=1e-14)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("capacity", [0.25, 0.7])
def test_the_loss_teaches_evaluation_to_choose_the_share(router: str, capacity: float) -> None:
    torch.manual_seed(0)
    gate = DepthGate(16, capacity, router)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    direction = torch.randn(16)
    for _ in range(150):
        # Tokens of a common mean, as a residual stream has one, along which the router can find its threshold.
        gate(torch.randn(8, 64, 16) + direction, lambda states: 0 * states)
        gate.aux_loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    x = torch.randn(8, 256, 16) + direction
    share = (gate.eval()(x, torch.ones_like) != x).any(-1).float().mean()
    assert abs(float(share) - capacity) < 0.1


def test_no_token_chosen_leaves_everything_as_it_is() -> None:
    gate = DepthGate(4, 0.5, "learned_gate").eval()
    torch.nn.init.zeros_(gate.router.weight)
    x = torch.randn(2, 5, 4)
    assert gate(x, lambda states: pytest.fail("the body was called")) is x


def test_the_router_computes_in_float32_and_the_stream_keeps_its_type() -> None:
    gate = DepthGate(8).to(torch.bfloat16)
    y = gate(torch.randn(1, 6, 8, dtype=torch.bfloat16), lambda states: states)
    assert y.dtype == torch.bfloat16 and gate.aux_loss.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"capacity": 0.0}, {"capacity": 1.2}, {"router": "random"}])
def test_a_share_or_router_that_there_is_not_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DepthGate(8, **wrong)
