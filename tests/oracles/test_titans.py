"""Neural memory against titans-pytorch, forward and backward, where the two say the same.

They do with one head, without norms and residual around the network, with gradients of the summed square instead of the
mean, with a step for each token (`chunk_size` 1) and weights renewed after each mini-batch (`batch_size`). Elsewhere
titans-pytorch takes one step for several tokens, and reads with the weights before them; docs/decisions/0029.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    oracle = pytest.importorskip("titans_pytorch", reason="titans-pytorch is not installed: make oracles")

from eulerstack_titans.modules.neural_memory import TITANS_NORM_EPSILON, NeuralMemory  # noqa: E402

WIDTH, HIDDEN, TIME = 12, 24, 16


def pair(depth: int, momentum: bool, mini_batch: int) -> tuple[NeuralMemory, Any]:
    """Our memory and theirs with the same numbers, in float64."""
    params = {
        "update_at_inference": True, "persistence": "session", "hidden": None if depth == 1 else HIDDEN, "depth": depth,
        "inner_lr": 0.2, "momentum": 0.9 * momentum, "forget": 0.05, "mini_batch": mini_batch,
    }  # fmt: skip
    torch.manual_seed(0)
    ours = NeuralMemory(SimpleNamespace(hidden_size=WIDTH), params, 0)
    ours.initialize(0.3)
    theirs = oracle.NeuralMemory(
        dim=WIDTH,
        chunk_size=1,
        batch_size=mini_batch,
        momentum=momentum,
        pre_rmsnorm=False,
        qk_rmsnorm=True,
        activation=torch.nn.SiLU(),
        default_step_transform_max_lr=0.2,
        store_memory_loss_fn=lambda found, wanted: (found - wanted).square().sum(-1),
        mem_model_norm_add_residual=False,
        default_model_kwargs={"depth": depth, "expansion_factor": HIDDEN / WIDTH},
    )
    ours, theirs = ours.double(), theirs.double()
    gates = [theirs.to_adaptive_step[0], *([theirs.to_momentum[0]] if momentum else []), theirs.to_decay_factor[0]]
    with torch.no_grad():
        ours.o_proj.weight.copy_(torch.eye(WIDTH))
        for name, linear in (("q", theirs.to_queries), ("k", theirs.to_keys), ("v", theirs.to_values)):
            linear[0].weight.copy_(getattr(ours, f"{name}_proj").weight)
        for index, gate in enumerate(gates):
            gate.weight.copy_(ours.gate_proj.weight[index : index + 1])
            gate.bias.copy_(ours.gate_bias[index : index + 1])
        for weight, parameter in zip(ours.inner_weights, theirs.memory_model_parameters, strict=True):
            parameter.copy_(weight[None])
        for norm in (theirs.q_norm, theirs.k_norm):
            # Their norm gives vectors of length √width.
            norm.rmsnorm.eps = TITANS_NORM_EPSILON / WIDTH
            norm.gamma.fill_(WIDTH**-0.5 - 1.0)
    return ours, theirs


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("mini_batch", [1, 4, 16])
def test_reads_and_gradients_are_the_oracles(depth: int, momentum: bool, mini_batch: int) -> None:
    ours, theirs = pair(depth, momentum, mini_batch)
    hidden_states = torch.randn(2, TIME, WIDTH, dtype=torch.float64, requires_grad=True)
    actual, (expected, _) = ours(hidden_states), theirs(hidden_states)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)
    direction = torch.randn_like(actual)
    names = ["q_proj.weight", "k_proj.weight", "v_proj.weight", *(f"inner_weights.{layer}" for layer in range(depth))]
    parameters = dict(ours.named_parameters())
    found = torch.autograd.grad((actual * direction).sum(), [hidden_states, *(parameters[name] for name in names)])
    wanted = [
        hidden_states,
        *(linear[0].weight for linear in (theirs.to_queries, theirs.to_keys, theirs.to_values)),
        *theirs.memory_model_parameters,
    ]
    right = torch.autograd.grad((expected * direction).sum(), wanted)
    for name, one, other in zip(["hidden_states", *names], found, right, strict=True):
        torch.testing.assert_close(one, other.view_as(one), rtol=1e-8, atol=1e-9, msg=lambda text, at=name: at + text)
        assert one.abs().max() > 1e-6, name


@torch.no_grad()
def test_the_surprise_is_the_oracles() -> None:
    ours, theirs = pair(depth=2, momentum=True, mini_batch=16)
    hidden_states = torch.randn(2, TIME, WIDTH, dtype=torch.float64)
    _, _, (losses, _) = theirs(hidden_states, return_surprises=True)
    valid = torch.ones(2, TIME, dtype=torch.bool)
    _, surprise = ours.step(hidden_states, ours.first_state(hidden_states), valid)
    torch.testing.assert_close(surprise, losses.mean((1, 2)), rtol=1e-9, atol=1e-10)
