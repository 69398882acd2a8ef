"""What `explain` says about a training step is what a training step on the built model does."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.compiler.training_cost import training_cost  # noqa: E402
from eulerstack.hf import create_optimizer  # noqa: E402
from tests.ir.strategies import decoder, minimal  # noqa: E402


def step(model: torch.nn.Module, length: int) -> int:
    """FLOPs of one forward and backward pass over one sequence, the first token's loss included."""
    ids = torch.arange(length).unsqueeze(0) % 32
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False).logits.float().sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_costs_three_forward_passes_and_one_more_where_layers_are_recomputed(
    checkpointing: bool, tied: bool
) -> None:
    spec = minimal(
        model={"dtype": "float32"},
        layer_templates={"decoder": decoder()},
        head={"type": "causal_lm", "tie_weights": tied},
        training_hints={"checkpointing": checkpointing},
    )
    ir = es.normalize_to_ir(spec)
    cost = model_cost(ir)
    model = es.compile_to_hf_model(ir).train()
    # Eager attention computes every score, those that the mask hides included, and recomputes none.
    model.set_attn_implementation("eager")
    length = 8
    forward = FlopCounterMode(display=False)
    with forward, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False)
    whole = forward.get_total_flops()
    hidden = whole - cost.prefill_flops(length)
    head = 2 * length * ir.model["vocab_size"] * ir.model["d_model"]
    recomputed = whole - head if checkpointing else 0
    measured = step(model, length)
    # Recomputing a layer ends with the last thing that its backward pass needs, before its last product.
    last_products = 2 * length * ir.model["d_model"] * ir.model["d_ff"] * len(ir.layers) if checkpointing else 0
    assert measured == 3 * whole + recomputed - last_products
    # What is declared leaves out the hidden scores, and counts the head as if it were recomputed too.
    declared = training_cost(ir, cost, length).flops_per_token * length
    passes = 4 if checkpointing else 3
    assert declared == passes * (whole - hidden)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "hybrid"])
@pytest.mark.parametrize("policy", ["uniform", "layered_safe"])
@pytest.mark.parametrize("biased", [False, True])
def test_weights_gradients_and_optimizer_state_are_those_of_a_step(policy: str, optimizer: str, biased: bool) -> None:
    spec = minimal(
        model={"dtype": "bfloat16"},
        layer_templates={"decoder": decoder(mixer={"type": "attention", "attention": {"qkv_bias": biased}})},
        head={"type": "causal_lm", "tie_weights": biased},
        training_hints={"optimizer": optimizer, "lr_peak": 0.01},
        compatibility={"dtype_policy": policy},
    )
    ir = es.normalize_to_ir(spec)
    model = es.compile_to_hf_model(ir).train()
    ids = torch.arange(8).unsqueeze(0)
    model(ids, labels=ids).loss.backward()
    chosen = create_optimizer(model)
    chosen.step()
    price = training_cost(ir, model_cost(ir), 8)
    parameters = list(model.parameters())
    assert price.weights == sum(each.nbytes for each in parameters)
    assert price.gradients == sum(each.grad.nbytes for each in parameters)
    inner = getattr(chosen, "optimizers", [chosen])
    state = sum(
        value.nbytes
        for one in inner
        for values in one.state.values()
        for name, value in values.items()
        if isinstance(value, torch.Tensor) and name != "step"
    )
    least, most = price.optimizer
    if optimizer == "adamw":
        assert least == state == most
    else:
        # Exactly the least where what norms and tables leave are matrices.
        assert (least < state if biased else least == state) and state < most
    assert price.total == (price.weights + price.gradients + least, price.weights + price.gradients + most)
