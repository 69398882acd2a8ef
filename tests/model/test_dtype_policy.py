"""`compatibility.dtype_policy`: norms and routers stay in float32, the rest has the model's dtype, and it works."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.hf import create_optimizer, parameter_roles
from tests.model.specs import changed, enliven, follow_routes, tiny_spec, tokens
from tests.model.test_optimizers import Gate
from tests.model.variants import ATTENTION, VARIANTS

SAFE = {"compatibility.dtype_policy": "layered_safe"}


def safe_spec(dtype: str = "bfloat16", **changes: Any) -> dict[str, Any]:
    return changed(tiny_spec(), {**SAFE, "model.dtype": dtype, f"{ATTENTION}.qk_norm": "head", **changes})


def check(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """That every parameter has the type of its role."""
    roles = parameter_roles(model)
    for name, parameter in model.named_parameters():
        expected = torch.float32 if roles[name] in ("norm", "router") else dtype
        assert parameter.dtype == expected, name
    assert {"norm", "hidden"} <= set(roles.values())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("policy", ["uniform", "layered_safe"])
def test_the_declared_bytes_of_all_weights_are_the_built_ones(name: str, policy: str) -> None:
    spec = changed(VARIANTS[name], {"compatibility.dtype_policy": policy, "model.dtype": "bfloat16"})
    ir = es.normalize_to_ir(spec)
    model = es.compile_to_hf_model(ir)
    stored = sum(parameter.nbytes for parameter in model.parameters())
    assert stored == model_cost(ir).weight_bytes("bfloat16", policy)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_nearly_what_it_does_in_float32(name: str) -> None:
    spec = changed(VARIANTS[name], {**SAFE, "model.dtype": "bfloat16"})
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)
    enliven(model)
    exact = copy.deepcopy(model).float()
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    # Where two shares are nearly equal, rounding chooses another branch: what is compared is the same choice.
    follow_routes(exact, model, rounded)
    ids = tokens()
    with torch.no_grad():
        reference, logits = exact(ids).logits, model(ids).logits
        error, error_of_uniform = (
            float((each.float() - reference).norm() / reference.norm()) for each in (logits, rounded(ids).logits)
        )
    assert logits.dtype == torch.bfloat16
    assert error < max(0.05, 2 * error_of_uniform)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_directory_keeps_the_types_through_loading_training_and_saving(tmp_path: Any, dtype: str) -> None:
    ir = es.normalize_to_ir(safe_spec(dtype))
    es.compile_to_directory(ir, tmp_path / "first", seed=0)
    with safe_open(tmp_path / "first" / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert stored["model.norm.weight"] == torch.float32
    assert stored["model.layers.0.mixer.q_norm.weight"] == torch.float32
    assert stored["model.layers.0.mixer.q_proj.weight"] == getattr(torch, dtype)

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "first", trust_remote_code=True)
    check(loaded, getattr(torch, dtype))
    # A small difference that bfloat16 would lose.
    shifted = 1.0 + 2.0**-12
    with torch.no_grad():
        loaded.model.norm.weight.fill_(shifted)
    loaded.save_pretrained(tmp_path / "second")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "second", trust_remote_code=True)
    check(again, getattr(torch, dtype))
    assert torch.equal(again.model.norm.weight, loaded.model.norm.weight)
    assert float(again.model.norm.weight[0].detach()) == shifted


def test_it_trains_and_generates_in_bfloat16() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(safe_spec(**{"training_hints.lr_peak": 0.01})), seed=0)
    optimizer = create_optimizer(model)
    ids, losses = tokens(), []
    for _ in range(12):
        loss = model.train()(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
    check(model, torch.bfloat16)
    model.eval()
    made = model.generate(ids[:, :4], max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert made.shape == (2, 10)


def test_the_loaded_type_may_be_chosen_and_a_new_model_keeps_the_policy(tmp_path: Any) -> None:
    es.compile_to_directory(es.normalize_to_ir(safe_spec()), tmp_path / "out", seed=0)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True, dtype=torch.float32)
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}
    config = AutoConfig.from_pretrained(tmp_path / "out", trust_remote_code=True)
    fresh = AutoModelForCausalLM.from_config(config, trust_remote_code=True, dtype=torch.bfloat16)
    check(fresh, torch.bfloat16)


def test_a_layer_norm_works_beside_lower_precision() -> None:
    spec = changed(safe_spec(), {"layer_templates.decoder.norm": {"type": "layernorm"}})
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)
    check(model, torch.bfloat16)
    with torch.no_grad():
        assert model(tokens()).logits.dtype == torch.bfloat16


def test_a_router_stays_in_float32_and_its_bias_does_not() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(safe_spec()))
    model.model.layers[0].add_module("gate", Gate().to(torch.bfloat16))
    model.settle()
    gate = model.model.layers[0].gate
    assert (gate.choose.weight.dtype, gate.choose.bias.dtype) == (torch.float32, torch.bfloat16)
    patterns = [re.compile(each) for each in model._keep_in_fp32_modules_strict]
    kept = {name for name in model.state_dict() if any(pattern.search(name) for pattern in patterns)}
    assert kept == {name for name, role in parameter_roles(model).items() if role in ("norm", "router")}
