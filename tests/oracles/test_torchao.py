"""Training with rounded weights, with torchao: what is trained is what the finished model computes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchao", reason="torchao is not installed: make oracles")

from torch import nn  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.errors import CompatibilityError  # noqa: E402
from eulerstack.hf import (  # noqa: E402
    create_optimizer,
    finish_quant_aware_training,
    optimizer_groups,
    prepare_quant_aware_training,
)
from eulerstack.i18n import using  # noqa: E402
from tests.model.specs import changed, enliven, tiny_spec, tokens  # noqa: E402

TYPES = ("int8", "fp8", "fp4")
SIZES = {"model.d_model": 64, "model.n_heads": 4, "model.n_kv_heads": 2, "model.d_ff": 96, "model.head_dim": None}
QUANT = "compatibility.quant_aware_training"


def asking(words: dict[str, Any], **changes: Any) -> Any:
    """A lively model whose spec asks for rounding with these words."""
    given = {**SIZES, "training_hints.lr_peak": 0.01, QUANT: words, **changes}
    model = es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), given)), seed=0)
    enliven(model)
    return model


def rounding(model: nn.Module) -> set[str]:
    """Names of the layers that round."""
    return {name for name, module in model.named_modules() if hasattr(module, "weight_fake_quantizer")}


@pytest.mark.parametrize(("dtype", "least", "most"), [("int8", 1e-3, 0.05), ("fp8", 1e-2, 0.2), ("fp4", 0.05, 0.8)])
def test_logits_change_by_the_rounding_and_every_weight_still_learns(dtype: str, least: float, most: float) -> None:
    words = {"enabled": True, "dtype": dtype}
    plain, model = asking(words), prepare_quant_aware_training(asking(words))
    ids = tokens()
    with torch.no_grad():
        before, after = plain(ids).logits, model(ids).logits
    assert least < float((before - after).norm() / before.norm()) < most
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "values"), [("int8", 255), ("fp8", 254), ("fp4", 15)])
def test_a_row_has_only_the_values_of_its_type(dtype: str, values: int) -> None:
    model = prepare_quant_aware_training(asking({"enabled": True, "dtype": dtype}))
    weight = finish_quant_aware_training(model).model.layers[0].mixer.q_proj.weight.detach()
    row = weight[0, :32] if dtype == "fp4" else weight[0]
    assert 2 < row.unique().numel() <= values
    if dtype == "int8":
        # Whole multiples of one step.
        gaps = row.sort().values.diff()
        steps = row / gaps[gaps > 1e-6].min()
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert steps.abs().max() < 128.5
    if dtype == "fp4":
        # The values of e2m1, times one power of two.
        sizes = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0}
        scale = 2.0 ** torch.arange(-12, 3)
        assert any({float(each) for each in (row / one).abs()} <= sizes for one in scale)


@pytest.mark.parametrize(("scope", "parts"), [("all", {"mixer", "ffn"}), ("mixer", {"mixer"}), ("ffn", {"ffn"})])
def test_the_scope_names_the_blocks(scope: str, parts: set[str]) -> None:
    model = prepare_quant_aware_training(asking({"enabled": True, "scope": scope}))
    assert {name.split(".")[3] for name in rounding(model)} == parts
    assert len(rounding(model)) == 3 * {"all": 7, "mixer": 4, "ffn": 3}[scope]


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_trained_is_what_the_finished_model_computes(tmp_path: Any, dtype: str) -> None:
    model = prepare_quant_aware_training(asking({"enabled": True, "dtype": dtype}))
    optimizer, ids, losses = create_optimizer(model), tokens(), []
    for _ in range(8):
        loss = model.train()(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    with torch.no_grad():
        trained = model.eval()(ids).logits
        finished = finish_quant_aware_training(model)
        assert not rounding(finished)
        torch.testing.assert_close(finished(ids).logits, trained, atol=1e-5, rtol=1e-5)
        # A plain directory, for anybody who has no torchao.
        finished.save_pretrained(tmp_path / "out")
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
        torch.testing.assert_close(loaded(ids).logits, trained, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ["uniform", "layered_safe"])
def test_the_finished_model_has_the_type_that_the_spec_names(policy: str) -> None:
    words = {"enabled": True, "dequant_to": "bfloat16"}
    model = prepare_quant_aware_training(asking(words, **{"compatibility.dtype_policy": policy}))
    finished = finish_quant_aware_training(model)
    assert finished.config.dtype == torch.bfloat16
    assert finished.model.layers[0].mixer.q_proj.weight.dtype == torch.bfloat16
    norm = torch.float32 if policy == "layered_safe" else torch.bfloat16
    assert finished.model.norm.weight.dtype == norm
    with torch.no_grad():
        assert finished(tokens()).logits.dtype == torch.bfloat16


def test_rounding_changes_neither_roles_nor_groups() -> None:
    words = {"enabled": True}

    def shape_of(model: nn.Module) -> list[Any]:
        return [(group["role"], len(group["params"]), group["lr"]) for group in optimizer_groups(model)]

    expected = shape_of(asking(words))
    model = prepare_quant_aware_training(asking(words))
    assert shape_of(model) == expected
    assert shape_of(finish_quant_aware_training(model)) == expected


def test_widths_that_no_block_of_fp4_fits_are_refused() -> None:
    with using("en"), pytest.raises(CompatibilityError, match="32 weights"):
        prepare_quant_aware_training(asking({"enabled": True, "dtype": "fp4"}, **{"model.d_ff": 80}))


def test_a_spec_that_does_not_ask_is_refused() -> None:
    with using("en"), pytest.raises(CompatibilityError, match="does not ask"):
        prepare_quant_aware_training(asking({"enabled": False}))
