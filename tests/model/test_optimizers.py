"""`optimizer_groups`: which parameters are trained how, from the config alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import eulerstack as es
from eulerstack.hf import create_optimizer, optimizer_groups, parameter_roles, training_arguments
from eulerstack.hf.optimizers import MuonWithAdamW
from tests.model.specs import changed, tiny_spec, tokens
from tests.model.variants import VARIANTS

HINTS = "training_hints"


def built_with(**hints: Any) -> Any:
    given = {f"{HINTS}.{word}": value for word, value in hints.items()}
    return es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), given)), seed=0)


def settings(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Its group's words for every parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: {word: value for word, value in group.items() if word != "params"}
        for group in optimizer_groups(model)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_is_in_one_group_and_only_matrices_decay(name: str) -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(VARIANTS[name]))
    given = [id(parameter) for group in optimizer_groups(model) for parameter in group["params"]]
    assert sorted(given) == sorted(id(parameter) for parameter in model.parameters())
    for group in optimizer_groups(model):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if group["role"] in ("norm", "vector") else 0.1)
            assert parameter.ndim >= 2 or group["weight_decay"] == 0.0


def test_roles_of_a_plain_decoder() -> None:
    roles = parameter_roles(built_with())
    layer = "model.layers.0"
    assert {name.removeprefix(f"{layer}."): role for name, role in roles.items() if name.startswith(layer)} == {
        "mixer.q_proj.weight": "query",
        "mixer.k_proj.weight": "hidden",
        "mixer.v_proj.weight": "hidden",
        "mixer.o_proj.weight": "output",
        "ffn.gate_proj.weight": "hidden",
        "ffn.up_proj.weight": "hidden",
        "ffn.down_proj.weight": "output",
        "mixer_norm.weight": "norm",
        "ffn_norm.weight": "norm",
    }
    assert roles["model.embed_tokens.weight"] == "embedding"
    assert roles["lm_head.weight"] == "readout"


class Gate(nn.Module):
    """A module that names a role in a child, which has another for itself."""

    parameter_roles = {"choose.weight": "router", "inner.table": "hidden"}

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Linear(36, 4)
        self.inner = Inner()


class Inner(nn.Module):
    parameter_roles = {"table": "vector"}

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))


def test_the_nearest_declaration_counts_and_an_unknown_role_is_an_error() -> None:
    roles = parameter_roles(Gate())
    assert roles == {"choose.weight": "router", "choose.bias": "vector", "inner.table": "vector"}
    wrong = nn.Linear(2, 2)
    wrong.parameter_roles = {"weight": "hiden"}
    with pytest.raises(ValueError, match="hiden"):
        parameter_roles(wrong)


def test_rates_decay_and_betas_are_those_of_the_hints() -> None:
    found = settings(built_with(lr_peak=0.01, weight_decay=0.3, betas=[0.8, 0.9]))
    weight, norm = found["model.layers.0.mixer.q_proj.weight"], found["model.norm.weight"]
    assert (weight["lr"], weight["weight_decay"], weight["betas"]) == (0.01, 0.3, (0.8, 0.9))
    assert (norm["lr"], norm["weight_decay"]) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("optimizer", "muon"),
    [
        ("adamw", set()),
        ("hybrid", {"hidden", "query", "output"}),
        ("muon", {"hidden", "query", "output", "embedding", "readout"}),
    ],
)
def test_the_optimizer_decides_which_roles_muon_gets(optimizer: str, muon: set[str]) -> None:
    spec = changed(tiny_spec(), {f"{HINTS}.optimizer": optimizer, "head.tie_weights": False})
    model = es.compile_to_hf_model(es.normalize_to_ir(spec))
    assert {group["role"] for group in optimizer_groups(model) if group["optimizer"] == "muon"} == muon
    assert isinstance(create_optimizer(model), MuonWithAdamW if muon else torch.optim.AdamW)


def test_muons_words_reach_torchs_muon() -> None:
    words = {"lr_peak": 0.02, "momentum": 0.9, "nesterov": False, "ns_steps": 4, "adjust_lr": "original"}
    found = settings(built_with(optimizer="hybrid", muon=words))["model.layers.0.ffn.up_proj.weight"]
    assert (found["lr"], found["momentum"], found["nesterov"]) == (0.02, 0.9, False)
    assert (found["ns_steps"], found["adjust_lr_fn"]) == (4, "original")


def test_under_mup_rates_of_hidden_matrices_fall_with_the_width_and_their_decay_does_not() -> None:
    scaling = {"parametrization": "mup", "base_width": 12}
    found = settings(built_with(scaling=scaling, lr_peak=0.03))
    for name, settled in found.items():
        hidden = settled["role"] in ("hidden", "query", "output")
        assert settled["lr"] == pytest.approx(0.01 if hidden else 0.03), name
        assert settled["lr"] * settled["weight_decay"] in (0.0, pytest.approx(0.003))


@pytest.mark.parametrize(("adjust", "factor"), [("original", 1.0), ("match_rms_adamw", 3**-0.5)])
def test_under_mup_muons_rate_depends_on_how_large_its_updates_are(adjust: str, factor: float) -> None:
    scaling = {"parametrization": "mup", "base_width": 12}
    found = settings(built_with(scaling=scaling, optimizer="hybrid", muon={"adjust_lr": adjust}, lr_peak=0.03))
    assert found["model.layers.0.ffn.up_proj.weight"]["lr"] == pytest.approx(0.03 * factor)


def test_the_first_exception_that_fits_counts() -> None:
    exceptions = [
        {"match": "*.layers.0.*", "role": "output", "lr_multiplier": 0.5},
        {"role": "output", "optimizer": "muon", "weight_decay": 0.0},
        {"role": "embedding", "lr_multiplier": 0.1},
    ]
    found = settings(built_with(lr_peak=0.01, optimizer_groups=exceptions))
    assert found["model.layers.0.mixer.o_proj.weight"]["lr"] == pytest.approx(0.005)
    assert found["model.layers.0.mixer.o_proj.weight"]["optimizer"] == "adamw"
    second = found["model.layers.1.mixer.o_proj.weight"]
    assert (second["optimizer"], second["weight_decay"], second["lr"]) == ("muon", 0.0, 0.01)
    assert found["model.embed_tokens.weight"]["lr"] == pytest.approx(0.001)
    assert found["model.layers.0.mixer.q_proj.weight"]["lr"] == 0.01


def test_an_exception_that_fits_nothing_is_an_error() -> None:
    model = built_with(optimizer_groups=[{"match": "*.attn.*", "lr_multiplier": 0.5}])
    with pytest.raises(ValueError, match=r"optimizer_groups\[0\]"):
        optimizer_groups(model)


def test_routers_have_a_rate_of_their_own_and_the_word_needs_one() -> None:
    model = built_with(router_lr_multiplier=3.0, lr_peak=0.01)
    with pytest.raises(ValueError, match="no router"):
        optimizer_groups(model)
    model.model.layers[1].add_module("gate", Gate())
    found = settings(model)
    assert found["model.layers.1.gate.choose.weight"]["lr"] == pytest.approx(0.03)
    assert found["model.layers.1.gate.choose.weight"]["role"] == "router"
    assert found["model.layers.1.gate.choose.bias"]["lr"] == 0.01


def test_frozen_parameters_are_left_out() -> None:
    model = built_with()
    model.model.embed_tokens.requires_grad_(False)
    assert "embedding" not in {group["role"] for group in optimizer_groups(model)}


def test_a_wrapped_model_and_a_loaded_export_have_the_same_groups(tmp_path: Any) -> None:
    hints = {"optimizer": "hybrid", "scaling": {"parametrization": "mup", "base_width": 12}}
    spec = changed(tiny_spec(), {f"{HINTS}.{word}": value for word, value in hints.items()})
    ir = es.normalize_to_ir(spec)
    expected = settings(es.compile_to_hf_model(ir, seed=0))
    es.compile_to_directory(ir, tmp_path / "out", seed=0)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(loaded).__module__.startswith("transformers_modules")
    assert settings(loaded) == expected
    wrapped = nn.Sequential(loaded)
    assert {name.removeprefix("0."): words for name, words in settings(wrapped).items()} == expected
    names = {f"_orig_mod.{name}": words for name, words in expected.items()}
    assert settings(torch.compile(loaded)) == names
    with pytest.raises(ValueError, match="no EulerStack model"):
        optimizer_groups(nn.Linear(2, 2))


def test_hybrid_steps_are_those_of_torchs_two_optimizers() -> None:
    words = {"optimizer": "hybrid", "lr_peak": 0.02, "weight_decay": 0.2}
    ours, theirs = built_with(**words), built_with(**words)
    optimizer = create_optimizer(ours)
    hidden = [p for n, p in theirs.named_parameters() if n.startswith("model.layers") and p.ndim == 2]
    norms = [p for p in theirs.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    table = {"params": [theirs.model.embed_tokens.weight], "weight_decay": 0.2}
    adamw = torch.optim.AdamW([table, {"params": norms, "weight_decay": 0.0}], lr=0.02, betas=(0.9, 0.95))
    ids = tokens()
    for step in range(4):
        for model, optimizers in ((ours, [optimizer]), (theirs, [muon, adamw])):
            model(ids, labels=ids).loss.backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
        if step == 1:
            # A resumed run goes on as if nothing had happened.
            resumed = create_optimizer(ours)
            resumed.load_state_dict(optimizer.state_dict())
            optimizer = resumed
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, others[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "hybrid"])
def test_a_trainer_takes_the_optimizer_and_the_schedule(tmp_path: Any, optimizer: str) -> None:
    model = built_with(
        optimizer=optimizer,
        lr_peak=0.01,
        lr_floor_ratio=0.25,
        warmup_steps_ratio=0.2,
        grad_clip=0.7,
        checkpointing=True,
    )
    ids = tokens(batch=4)
    data = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=10, per_device_train_batch_size=4, report_to="none", use_cpu=True, logging_steps=1,
        save_strategy="steps", save_steps=10, disable_tqdm=True, **training_arguments(model),
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(create_optimizer(model), None))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.5
    assert model.model.gradient_checkpointing
    assert (arguments.max_grad_norm, arguments.get_warmup_steps(10)) == (0.7, 2)
    assert [entry["learning_rate"] for entry in logged[:3]] == [0.0, pytest.approx(0.005), pytest.approx(0.01)]
    # The schedule multiplies every group's own rate.
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [
        pytest.approx(0.25 * group["initial_lr"]) for group in trainer.optimizer.param_groups
    ]


def test_training_arguments_come_from_a_config_too() -> None:
    model = built_with(lr_peak=0.01, betas=[0.7, 0.8], weight_decay=0.4, grad_clip=2.0)
    assert training_arguments(model.config) == training_arguments(model)
    found = training_arguments(model)
    assert (found["learning_rate"], found["adam_beta1"], found["adam_beta2"]) == (0.01, 0.7, 0.8)
    assert (found["weight_decay"], found["max_grad_norm"]) == (0.4, 2.0)
