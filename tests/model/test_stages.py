"""Stages that hold layers: in the IR, in the price, in the model, in its cache."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import output_capturing

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import parse_text
from eulerstack.errors import EulerStackError
from eulerstack.ir import from_data, normalize_to_ir, print_ir, to_data, to_spec
from eulerstack.plugins import hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import installed_sources, reset_registry
from eulerstack.plugins.sources import PluginSource
from tests.model.specs import built, changed, tokens
from tests.model.stages import COPIES, STEPS, stage
from tests.model.words import tiny_spec

MAMBA = {
    "mixer": {"type": "mamba", "mamba": {"variant": "mamba2", "head_dim": 12, "d_state": 8}},
    "ffn": {"type": "none"},
}
MOE = {
    "mixer": {"type": "attention", "attention": {"window": 5}},
    "ffn": {"type": "moe", "experts": 3, "top_k": 1, "load_balance_coef": 0.1},
}


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The language with a third party's integrators in it."""
    module = types.ModuleType("acme")
    module.eulerstack_integrators = hookimpl(lambda: [COPIES, STEPS])  # type: ignore[attr-defined]
    sources = [*installed_sources(), PluginSource("acme", "acme", "1.0", lambda: module)]
    monkeypatch.setattr(manager_module, "installed_sources", lambda: sources)
    reset_registry()
    yield
    reset_registry()


def staged(*schedule: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """The tiny spec with this schedule, over attention, a state space and experts."""
    spec = tiny_spec(layer_schedule=list(schedule), **sections)
    spec["layer_templates"] |= {"mamba": MAMBA, "experts": MOE}
    return spec


MIXED = staged(
    {"template": "decoder", "override": {"attention": {"window": 4}}},
    stage(STEPS, 2, "mamba"),
    stage(COPIES, 2),
    {"template": "decoder", "repeat": 2},
    stage(STEPS, 3, "experts"),
)


def test_an_ir_holds_stages_in_order_and_the_layers_of_all() -> None:
    ir = normalize_to_ir(MIXED)
    assert [stage.word for stage in ir.stages] == ["", "integrator", "integrator", "", "", "integrator"]
    assert [layer.template for layer in ir.layers] == ["decoder", "mamba", *["decoder"] * 4, "experts"]
    assert dict(ir.stages[1].integrator.params) == {"steps": 2, "output": "token"}  # type: ignore[union-attr]
    assert ir.stages[1].location is None and ir.final_norm is not None


@pytest.mark.parametrize("order", [0, 1])
def test_the_text_and_the_json_of_stages_give_them_back(order: int) -> None:
    spec = copy.deepcopy(MIXED)
    spec["layer_schedule"][2]["integrator"]["experimental.note"] = [1]
    spec["layer_schedule"][1]["future.x"] = 2
    spec["layer_schedule"] = spec["layer_schedule"][:: 1 - 2 * order]
    ir = normalize_to_ir(spec)
    assert len(ir.extensions) == 2
    text = print_ir(ir)
    assert normalize_to_ir(parse_text(text, "printed.yml")) == ir
    assert print_ir(normalize_to_ir(to_spec(ir))) == text
    assert from_data(json.loads(json.dumps(to_data(ir)))) == ir


def test_a_body_is_printed_as_a_template_of_which_others_are_overrides() -> None:
    window = {"attention": {"window": 4}}
    ir = normalize_to_ir(staged({"template": "decoder", "repeat": 5, "override": window}, stage(STEPS)))
    assert to_spec(ir)["layer_schedule"][0] == {"template": "decoder", "repeat": 5, "override": window}
    assert normalize_to_ir(to_spec(ir)) == ir


def test_the_price_is_that_of_the_built_model_and_of_every_evaluation() -> None:
    ir = normalize_to_ir(MIXED)
    model = built(MIXED)
    assert model_cost(ir).total == sum(parameter.numel() for parameter in model.parameters())
    once = staged(stage(STEPS, 1))
    thrice = staged(stage(STEPS, 3))
    costs = [model_cost(normalize_to_ir(spec)) for spec in (once, thrice)]
    assert costs[0].total == costs[1].total
    assert costs[1].cache_bytes(9) == 3 * costs[0].cache_bytes(9)
    layer = costs[0].flops_per_token(9) - model_cost(normalize_to_ir(staged({"template": "decoder"}))).flops_per_token(
        9
    )
    assert layer == 0
    head = 2 * 53 * 36
    assert costs[1].flops_per_token(9) - head == 3 * (costs[0].flops_per_token(9) - head)


def test_layers_with_several_residual_streams_have_one_outside_their_stage() -> None:
    hyper = {"type": "hyper_connection", "hyper": {"expand": 2}}
    spec = changed(MIXED, {"layer_templates.decoder.residual": hyper, "layer_templates.experts.residual": hyper})
    model, ir = built(spec), normalize_to_ir(spec)
    assert model_cost(ir).total == sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        first = model(tokens()[:, :9], use_cache=True)
        second = model(tokens()[:, 9:], past_key_values=first.past_key_values).logits
        torch.testing.assert_close(second, model(tokens()).logits[:, 9:], atol=2e-5, rtol=0)


def test_independent_copies_are_layers_one_after_another() -> None:
    plain, copies = built(staged({"template": "decoder", "repeat": 3})), built(staged(stage(COPIES)))
    weights = plain.model.layers.state_dict()
    copies.model.layers.load_state_dict({f"0.layers.{name}": value for name, value in weights.items()})
    with torch.no_grad():
        assert torch.equal(plain(tokens()).logits, copies(tokens()).logits)
    assert copies.config.layer_types == ["full_attention"] * 3


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(1,) * 17, (5, 12), (1, 3, 13)], ids=str)
def test_decoding_with_a_cache_equals_the_full_forward(chunks: tuple[int, ...]) -> None:
    model, ids = built(MIXED), tokens()
    full = model(ids, use_cache=False).logits
    cache, parts, start = None, [], 0
    for length in chunks:
        output = model(ids[:, start : start + length], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
        start += length
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=2e-5, rtol=0)
    assert len(cache.layers) == len(model.config.layer_types) == 10


CHOOSES_STATES = hasattr(output_capturing, "selected_hidden_states")


def test_hidden_states_are_what_stages_read() -> None:
    model = built(MIXED)
    with torch.no_grad():
        output = model(tokens(), output_hidden_states=True)
        assert len(output.hidden_states) == 7 == model.config.num_stages + 1


@pytest.mark.skipif(not CHOOSES_STATES, reason="this transformers gives all hidden states or none")
def test_chosen_hidden_states_are_those_of_stages() -> None:
    with torch.no_grad():
        last = built(MIXED)(tokens(), output_hidden_states=[-2])
    assert [state is not None for state in last.hidden_states] == [False] * 5 + [True, False]


def test_gradients_are_the_same_with_checkpointing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = built(MIXED).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        output = model(tokens(), labels=tokens(), use_cache=False)
        output.loss.backward()
        assert output.aux_loss > 0
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_a_directory_with_stages_loads_and_is_saved_again(tmp_path: Path) -> None:
    es.compile_to_directory(normalize_to_ir(MIXED), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(model(tokens()).logits, again(tokens()).logits)
        assert torch.equal(model(tokens()).logits, es.compile_to_hf_model(normalize_to_ir(MIXED))(tokens()).logits)
    source = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class Integrator(" in source and "class Steps(" in source


def test_an_export_without_stages_holds_nothing_of_them(tmp_path: Path) -> None:
    es.compile_to_directory(normalize_to_ir(tiny_spec()), tmp_path / "model")
    source = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "Integrator" not in source and "ShiftedCache" not in source
    assert compile_ir(normalize_to_ir(tiny_spec()))["architecture"]["layers"] == [0, 0, 0]


def test_matrices_inside_stages_are_split_like_others() -> None:
    plan = compile_ir(normalize_to_ir(staged({"template": "decoder"}, stage(COPIES, 2))))["tensor_parallel_plan"]
    assert plan["layers.*.mixer.q_proj"] == plan["layers.*.layers.*.mixer.q_proj"] == "colwise"


@pytest.mark.parametrize(
    ("entry", "path", "what"),
    [
        ({"template": "decoder", **stage(STEPS)}, "layer_schedule[0].integrator", "either template or integrator"),
        ({**stage(STEPS), "repeat": 2}, "layer_schedule[0].repeat", "repeat belongs to an entry with template"),
        ({"integrator": {"type": STEPS.name, "steps": 2}}, "layer_schedule[0].integrator.body", "is missing"),
        (stage(STEPS, 0), "layer_schedule[0].integrator.steps", "at least 1"),
        (stage(STEPS, 100_001), "layer_schedule[0].integrator.steps", "at most 100000"),
        (stage(STEPS, 2, "dekoder"), "layer_schedule[0].integrator.body", "there is no template"),
        (stage(STEPS, 2, output="hiden"), "layer_schedule[0].integrator.output", "must be one of"),
        ({"repeat": 2}, "layer_schedule[0].template", "is missing"),
    ],
)
def test_what_an_entry_says_wrong_is_said_where_it_stands(entry: dict[str, Any], path: str, what: str) -> None:
    with pytest.raises(EulerStackError) as caught:
        normalize_to_ir(staged(entry))
    (problem,) = caught.value.diagnostics
    assert problem.path == path and what in problem.what.render(str)
