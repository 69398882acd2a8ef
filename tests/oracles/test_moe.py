"""Routing and its losses against st-moe-pytorch, forward and backward.

Its balance loss counts a token's first expert alone, so ours is compared at top_k 1; of more experts the weights are.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
oracle = pytest.importorskip("st_moe_pytorch.st_moe_pytorch", reason="st-moe-pytorch is not installed: make oracles")

import eulerstack as es  # noqa: E402
from eulerstack_mixers.modules.moe import MixtureOfExperts  # noqa: E402

WIDTH, EXPERTS = 12, 5


def ours(top_k: int, **losses: Any) -> MixtureOfExperts:
    """A block of experts that weighs each of its losses by 1."""
    spec = {
        "schema_version": 1,
        "model": {"name": "moe", "d_model": WIDTH, "vocab_size": 40, "max_seq_len": 16, "n_heads": 2},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {
            "moe": {
                "mixer": {"type": "attention"},
                "ffn": {"type": "moe", "experts": EXPERTS, "top_k": top_k, "load_balance_coef": 0.0, **losses},
            }
        },
        "layer_schedule": [{"template": "moe"}],
        "head": {"type": "causal_lm"},
        "training_hints": {"router_aux_loss_coef": 1.0},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec)).model.layers[0].ffn.double().train()


def theirs(block: MixtureOfExperts, top_k: int) -> Any:
    """The oracle with our router's weights, and with room for every token."""
    gating = oracle.TopNGating(
        WIDTH, EXPERTS, top_n=top_k, threshold_train=0.0, capacity_factor_train=float(EXPERTS)
    ).double()
    with torch.no_grad():
        gating.to_gates.weight.copy_(block.router.weight)
    return gating.train()


@pytest.mark.parametrize("loss", ["z_loss", "sequence_aux_coef"])
def test_the_losses_and_their_gradients_are_the_oracles(loss: str) -> None:
    block = ours(1, **({"z_loss": 1.0} if loss == "z_loss" else {"balance": {loss: 1.0}}))
    states = torch.randn(3, 11, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    gating, found = theirs(block, 2), []
    for module in (block, gating):
        inputs = states.clone().requires_grad_()
        if module is block:
            block.begin(None)
            block(inputs)
            value, _ = block.finish()
        else:
            *_, balance, z_loss = gating(inputs)
            value = z_loss if loss == "z_loss" else balance
        value.backward()
        found.append((value.detach(), inputs.grad))
    (value, gradient), (expected, wanted) = found
    # The oracle counts tokens in float32.
    torch.testing.assert_close(value, expected.to(value.dtype), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(gradient, wanted, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(block.router.weight.grad, gating.to_gates.weight.grad, atol=1e-8, rtol=1e-6)
    assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("top_k", [2, 3])
def test_the_weights_of_the_chosen_experts_are_the_oracles(top_k: int) -> None:
    block = ours(top_k)
    states = torch.randn(2, 9, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    _, combine, *_ = theirs(block, top_k)(states)
    _, weights, chosen = block.router(states.flatten(0, 1), None)
    expected = torch.zeros(18, EXPERTS, dtype=torch.double).scatter(1, chosen, weights)
    torch.testing.assert_close(expected.view(2, 9, EXPERTS), combine.sum(-1).double(), atol=1e-6, rtol=0)
