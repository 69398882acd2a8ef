"""Layers of another width than the model's: sizes, function, state, price, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.hf.slots import WIDTH_TAPS
from eulerstack.ir import from_data, print_ir
from eulerstack.ir.dims import layer_sizes
from eulerstack.schema import report
from tests.model.mixers.shape_change import ATTENTION, CHANGE, GATING, MIXER, VARIANTS, narrow
from tests.model.specs import built, changed, tiny_spec, tokens

PROJECTIONS = ("linear", "conv1d", "mlp")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_built_parameters_and_cache_are_the_declared_ones(name: str) -> None:
    model, ir = built(VARIANTS[name]), es.normalize_to_ir(VARIANTS[name])
    cost = model_cost(ir)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.total
    if "gated" in name or "hybrid" in name:
        return
    with torch.no_grad():
        layers = model(tokens(time=13), use_cache=True).past_key_values.layers
    stored = sum(
        layer.state_bytes if hasattr(layer, "state_bytes") else layer.keys.nbytes + layer.values.nbytes
        for layer in layers
    )
    assert stored == cost.cache_bytes(13, batch=2)


def test_heads_share_out_the_layers_width_and_feed_forward_blocks_keep_their_proportion() -> None:
    ir = es.normalize_to_ir(narrow(d_out=24))
    sizes = layer_sizes(ir, ir.layers[0])
    assert (sizes["d_model"], sizes["n_heads"], sizes["head_dim"], sizes["d_ff"]) == (24, 3, 8, 33)
    layer = built(narrow(d_out=24)).model.layers[0]
    assert layer.mixer.q_proj.weight.shape == (24, 24) and layer.ffn.up_proj.weight.shape == (33, 24)
    assert layer.mixer_norm.weight.shape == (24,)


def test_a_head_with_a_width_of_its_own_keeps_it() -> None:
    spec = narrow({"model.head_dim": 10}, d_out=17)
    ir = es.normalize_to_ir(spec)
    assert layer_sizes(ir, ir.layers[0])["head_dim"] == 10
    assert built(spec).model.layers[0].mixer.q_proj.weight.shape == (30, 17)


def test_with_two_identities_for_projections_it_is_the_layer_itself() -> None:
    plain, wrapped = built(tiny_spec()), built(narrow(d_out=36))
    state = plain.state_dict()
    for index in range(3):
        for place in ("down", "up"):
            state[f"model.layers.{index}.width_change.{place}.weight"] = torch.eye(36)
    wrapped.load_state_dict(state)
    ids = tokens()
    with torch.no_grad():
        torch.testing.assert_close(wrapped(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_prompt_costs_what_is_computed(projection: str) -> None:
    spec = narrow(projection=projection)
    model = built(spec)
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens(batch=1, time=12), use_cache=False)
    # Attention written out multiplies hidden scores too.
    hidden = 3 * 4 * 24 * sum(11 - index for index in range(12))
    assert counter.get_total_flops() == model_cost(es.normalize_to_ir(spec)).prefill_flops(12) + hidden


def test_convolutions_own_the_slot_after_their_layers_mixers() -> None:
    model = built(VARIANTS["narrow_branched"])
    assert [layer.width_change.slot for layer in model.model.layers] == [2, 5, 8]
    assert len(model.config.layer_types) == 9
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
    slots = cache.layers[2].slots
    assert slots["down"].shape == (2, WIDTH_TAPS - 1, 36) and slots["up"].shape == (2, WIDTH_TAPS - 1, 24)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_while_training_packed_sequences_and_padding_change_nothing(projection: str) -> None:
    model = built(narrow(projection=projection)).train()
    first, second = tokens(batch=1, time=9, seed=1), tokens(batch=1, time=7, seed=2)
    with torch.no_grad():
        alone = [model(ids, use_cache=False).logits for ids in (first, second)]
        positions = torch.cat((torch.arange(9), torch.arange(7)))[None]
        packed = model(torch.cat((first, second), 1), position_ids=positions, use_cache=False).logits
        torch.testing.assert_close(packed, torch.cat(alone, 1), atol=2e-5, rtol=1e-5)
        mask = torch.tensor([[1] * 9, [0, 0] + [1] * 7])
        padded = torch.cat((first, torch.cat((first[:, :2], second), 1)))
        logits = model(padded, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(logits[1:, 2:], alone[1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["narrow_conv", "width_hybrid"])
def test_checkpointed_training_gives_the_same_gradients(name: str) -> None:
    ids, found = tokens(), []
    for checkpointing in (False, True):
        model = built(VARIANTS[name]).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids, use_cache=False).loss.backward()
        found.append({key: each.grad for key, each in model.named_parameters()})
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, atol=1e-5, rtol=1e-5)


def test_the_ir_says_it_and_gives_it_back() -> None:
    ir = es.normalize_to_ir(VARIANTS["width_hybrid"])
    assert "shape_change" in print_ir(ir)
    config = compile_ir(ir)
    assert from_data(config["architecture"]) == ir
    assert config["architecture"]["blocks"][0]["sizes"] == {"d_model": 18, "head_dim": 6, "d_ff": 25}
    assert "shape_change" not in str(compile_ir(es.normalize_to_ir(tiny_spec())))


@pytest.mark.parametrize("position", ["pre", "post"])
def test_a_model_whose_last_layer_is_wrapped_ends_with_a_norm_of_its_own(position: str) -> None:
    norm = {"layer_templates.decoder.norm": {"position": position}}
    for spec in (narrow(norm), changed(tiny_spec(), {**norm, GATING: {}})):
        assert es.normalize_to_ir(spec).final_norm is not None


def problem_of(spec: dict[str, Any], error: Any = CompatibilityError) -> Any:
    with pytest.raises(error) as caught:
        es.validate_v2(spec)
    (problem,) = caught.value.diagnostics
    return problem


def test_a_width_that_heads_cant_share_out_is_refused_where_it_stands() -> None:
    problem = problem_of(narrow(d_out=25))
    assert problem.path == "layer_templates.decoder.shape_change.d_out" and problem.fix.render(str) == "Type d_out: 24"


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_templates.decoder.residual": {"type": "hyper_connection", "hyper": {"expand": 2}}},
        {"layer_templates.decoder.memory": {"type": "neural_memory"}},
    ],
)
def test_what_asks_for_the_models_width_is_refused(changes: dict[str, Any]) -> None:
    assert problem_of(narrow(changes)).path == "layer_templates.decoder.shape_change"


def test_what_a_mixer_objects_to_is_asked_at_the_layers_width() -> None:
    es.validate_v2(tiny_spec())
    wide = changed(tiny_spec(), {f"{ATTENTION}.latent_dim": 30})
    es.validate_v2(wide)
    assert problem_of(changed(wide, {CHANGE: {"d_out": 24}})).path == f"{ATTENTION}.latent_dim"
    assert problem_of(narrow({MIXER: {"type": "retnet"}}, d_out=27)).path.startswith(MIXER)


@pytest.mark.parametrize("words", [{}, {"d_out": 0}, {"d_out": 8, "projection": "fft"}, {"d_out": 12, "kernel": 3}])
def test_words_that_there_are_not_are_refused(words: dict[str, Any]) -> None:
    assert problem_of(changed(tiny_spec(), {CHANGE: words}), ValidationError).path.startswith(CHANGE)


def test_a_layer_that_widens_is_reported() -> None:
    def found(d_out: int) -> list[str]:
        return [each.rule for each in report(es.normalize_to_ir(narrow(d_out=d_out))) if each.rule == "shape_change"]

    assert not found(24) and found(36) == found(48) == ["shape_change"]
