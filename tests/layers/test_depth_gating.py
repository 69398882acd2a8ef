"""Gated layers in a model: what they compute, cache, add to the loss, cost, and refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.cache_utils import DynamicCache

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.hf.depth_gate import share_of
from eulerstack.plugins import CacheLayer
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report
from tests.model.mixers.depth_gating import ATTENTION, GATING, MIXER, VARIANTS, gated
from tests.model.specs import built, changed, tiny_spec, tokens

MAMBA = {"type": "mamba", "mamba": {"d_state": 6, "head_dim": 12}}
RETNET = {"type": "retnet"}
HYENA = {"type": "hyena"}


def cache_of(spec: dict[str, Any], ids: torch.Tensor) -> Any:
    model = built(spec)
    with torch.no_grad():
        return model(ids, use_cache=True).past_key_values


@pytest.mark.parametrize(
    "name", ["gated", "gated_latent", "gated_window", "gated_alibi", "gated_mamba2", "gated_hyena"]
)
def test_the_cache_holds_what_explain_says_of_the_tokens_that_were_processed(name: str) -> None:
    time = 20
    layers = cache_of(changed(VARIANTS[name], {"layer_schedule.0.repeat": 1}), tokens(batch=1, time=time)).layers
    for layer in layers:
        processed = int(layer.counts) if "window" not in str(VARIANTS[name]) else layer.keys.shape[-2]
        assert 0 < processed < time
        share = {"layer_schedule.0.repeat": 1, f"{GATING}.capacity": int(layer.counts) / time}
        expected = model_cost(es.normalize_to_ir(changed(VARIANTS[name], share))).cache_bytes(time)
        if hasattr(layer, "state_bytes"):
            assert layer.state_bytes == expected
        else:
            positions = 0 if layer.positions is None else layer.positions.nbytes
            assert layer.keys.nbytes + layer.values.nbytes + positions == expected


def test_rows_of_a_batch_are_as_long_as_the_row_with_most() -> None:
    for layer in cache_of(VARIANTS["gated"], tokens(batch=5, time=30)).layers:
        assert layer.keys.shape[-2] == int(layer.counts.max()) and layer.counts.unique().numel() > 1


@pytest.mark.parametrize("mixer", [MAMBA, RETNET, HYENA], ids=lambda mixer: mixer["type"])
def test_a_token_that_passes_by_touches_no_state(mixer: dict[str, Any]) -> None:
    model = built(gated({MIXER: mixer, "layer_schedule.0.repeat": 1}))
    ids = tokens(batch=6, time=12)
    with torch.no_grad():
        cache = model(ids[:, :11], use_cache=True).past_key_values
        (layer,) = cache.layers
        before, counts = {name: slot.clone() for name, slot in layer.slots.items()}, layer.counts.clone()
        model(ids[:, 11:], past_key_values=cache)
    passed_by = layer.counts == counts
    assert passed_by.any() and not passed_by.all()
    for name, slot in layer.slots.items():
        # A history may have grown by a place that is empty in these rows.
        grown = slot.shape[1] - before[name].shape[1] if slot.shape != before[name].shape else 0
        assert torch.equal(slot[passed_by][:, grown:], before[name][passed_by])
        assert not slot[passed_by][:, :grown].any()


@torch.no_grad()
def test_a_layer_that_no_token_enters_is_not_computed_and_caches_nothing() -> None:
    model = built(gated(router="learned_gate"))
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.depth_gate.router.weight)
        layer.mixer.register_forward_pre_hook(lambda *_: pytest.fail("the mixer was called"))
    ids = tokens()
    output = model(ids, use_cache=True)
    assert output.past_key_values.get_seq_length() == ids.shape[1]
    assert all(layer.stored == 0 for layer in output.past_key_values.layers)
    embedded = model.model.norm(model.model.embed_tokens(ids))
    torch.testing.assert_close(output.logits, model.head(embedded, model.project))


@torch.no_grad()
def test_a_capacity_of_one_is_no_reason_to_let_every_token_in_when_evaluating() -> None:
    model = built(gated(capacity=1.0))
    cache = model(tokens(batch=1), use_cache=True).past_key_values
    assert int(cache.layers[0].counts) < 17


@pytest.mark.parametrize("capacity", [0.125, 0.5, 1.0])
def test_training_computes_exactly_the_share_that_the_cost_counts(capacity: float) -> None:
    spec = gated(capacity=capacity)
    model = built(spec).train()
    model.set_attn_implementation("eager")
    seen: list[int] = []
    for layer in model.model.layers:
        layer.mixer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    time = 24
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens(batch=1, time=time), use_cache=False)
    assert seen == [share_of(time, capacity)] * 3
    price = model_cost(es.normalize_to_ir(spec))
    # Attention written out multiplies hidden scores too.
    scores = 3 * 4 * 36 * sum(seen[0] - 1 - index for index in range(seen[0]))
    assert counter.get_total_flops() == price.prefill_flops(time) + scores


def test_active_parameters_and_decoding_cost_the_share() -> None:
    plain, half = (model_cost(es.normalize_to_ir(spec)) for spec in (tiny_spec(), gated(capacity=0.5)))
    gate = 36
    for before, after in zip(plain.layers, half.layers, strict=True):
        assert after.params == before.params + gate
        assert abs(after.active - (before.active / 2 + gate)) <= 2
    layers = plain.flops_per_token(32) - plain.head.flops_per_token
    of_scores = 3 * 4 * 36
    expected = (layers - of_scores * 32) / 2 + of_scores * 16 / 2 + 3 * 2 * gate + plain.head.flops_per_token
    assert half.flops_per_token(32) == pytest.approx(expected, abs=4)
    assert half.cache_bytes(64) * 2 == plain.cache_bytes(64)


@pytest.mark.parametrize("name", ["gated", "gated_soft", "gated_moe"])
def test_the_loss_is_the_models_and_that_of_the_gates(name: str) -> None:
    spec = changed(VARIANTS[name], {"training_hints.router_aux_loss_coef": 0.25})
    model = built(spec).train()
    found: list[torch.Tensor] = []
    for layer in model.model.layers:
        choose = layer.depth_gate.choose

        def recorded(*args: Any, choose: Any = choose, **kwargs: Any) -> Any:
            choice = choose(*args, **kwargs)
            found.append(choice.loss)
            return choice

        layer.depth_gate.choose = recorded
    ids = tokens()
    output = model(ids, labels=ids)
    own = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, own + output.aux_loss)
    if name != "gated_moe":
        torch.testing.assert_close(output.aux_loss, 0.25 * sum(found))
    output.aux_loss.backward()
    assert all(layer.depth_gate.router.weight.grad.abs().sum() > 0 for layer in model.model.layers)
    with torch.no_grad():
        assert model.eval()(ids, labels=ids).aux_loss is None


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["gated", "gated_soft", "gated_moe", "gated_mamba2"])
def test_checkpointed_training_gives_the_same_loss_and_gradients(name: str, reentrant: bool) -> None:
    ids, found = tokens(), []
    for checkpointing in (False, True):
        model = built(VARIANTS[name]).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        found.append((loss.detach(), {key: each.grad for key, each in model.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0])
    for key, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["gated", "gated_window", "gated_alibi", "gated_retnet", "gated_mamba1", "gated_hyena"]
)
def test_while_training_padding_and_packing_change_nothing(name: str) -> None:
    model = built(VARIANTS[name]).train()
    first, second = tokens(batch=1, time=9, seed=1), tokens(batch=1, time=7, seed=2)
    with torch.no_grad():
        alone = [model(ids, use_cache=False).logits for ids in (first, second)]
        positions = torch.cat((torch.arange(9), torch.arange(7)))[None]
        packed = model(torch.cat((first, second), 1), position_ids=positions, use_cache=False).logits
        torch.testing.assert_close(packed, torch.cat(alone, 1), atol=2e-5, rtol=1e-5)
        mask = torch.tensor([[1] * 9, [0, 0] + [1] * 7])
        padded = torch.cat((first, torch.cat((first[:, :2], second), 1)))
        logits = model(padded, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(logits[:1], alone[0], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(logits[1:, 2:], alone[1], atol=2e-5, rtol=1e-5)


def test_a_training_pass_of_top_k_compiles_into_one_graph() -> None:
    model = built(VARIANTS["gated"]).train()
    ids = tokens()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits)


@torch.no_grad()
def test_flex_attention_gives_the_same_numbers() -> None:
    model, ids = built(VARIANTS["gated_window"]), tokens()
    expected = model(ids).logits
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gated", "gated_alibi", "gated_mamba2", "gated_hyena"])
def test_rows_of_a_cache_can_be_chosen_and_repeated(name: str) -> None:
    model, ids = built(VARIANTS[name]), tokens(batch=3)
    rows = torch.tensor([2, 2, 0])
    expected = model(ids[rows]).logits[:, -1]
    chosen = model(ids[:, :-1], use_cache=True).past_key_values
    chosen.batch_select_indices(rows)
    torch.testing.assert_close(
        model(ids[rows, -1:], past_key_values=chosen).logits[:, -1], expected, atol=1e-4, rtol=1e-4
    )
    repeated = model(ids[:, :-1], use_cache=True).past_key_values
    repeated.batch_repeat_interleave(2)
    logits = model(ids[:, -1:].repeat_interleave(2, 0), past_key_values=repeated).logits[:, -1]
    torch.testing.assert_close(logits[::2], logits[1::2], atol=1e-5, rtol=1e-5)
    repeated.reset()
    torch.testing.assert_close(model(ids, past_key_values=repeated).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_cache_that_knows_nothing_of_gates_is_refused() -> None:
    model = built(VARIANTS["gated"])
    with pytest.raises(ValueError, match=r"DynamicCache\(config=model.config\)"):
        model(tokens(), past_key_values=DynamicCache())


def test_a_mask_of_four_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="take no masks of scores"):
        built(VARIANTS["gated"])(tokens(), attention_mask=torch.ones(2, 1, 17, 17, dtype=torch.bool))


@pytest.mark.parametrize("name", ["gated", "gated_mamba2"])
def test_assisted_decoding_is_refused(name: str) -> None:
    model = built(VARIANTS[name])
    with pytest.raises(RuntimeError, match="can't be used for assisted decoding"):
        model.generate(
            tokens(batch=1, time=6),
            assistant_model=built(tiny_spec()),
            max_new_tokens=10,
            do_sample=False,
            pad_token_id=0,
        )


def test_windows_are_named_by_the_types_of_cache_slots() -> None:
    spec = changed(gated({f"{ATTENTION}.window": 5}), {"layer_schedule": [{"template": "decoder"}]})
    spec["layer_schedule"].append({"template": "decoder", "depth_gating": {}})
    config = compile_ir(es.normalize_to_ir(spec))
    assert config["layer_types"] == ["sliding_attention", "eulerstack_gated_eulerstack_sliding_5"]
    assert config["sliding_window"] == 5


def test_a_gate_that_is_switched_off_leaves_no_trace() -> None:
    off = es.normalize_to_ir(gated(enabled=False, capacity=0.3))
    assert off == es.normalize_to_ir(tiny_spec())
    assert "depth_gating" not in str(compile_ir(off))


@pytest.mark.parametrize(("word", "value"), [("capacity", 0), ("capacity", 1.01), ("router", "hash"), ("share", 0.5)])
def test_values_that_there_are_not_are_refused_where_they_stand(word: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(gated(**{word: value}))
    (problem,) = caught.value.diagnostics
    assert problem.path == f"layer_schedule[0].depth_gating.{word}"


def test_a_cache_that_no_token_can_be_left_out_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = get_registry()._primitives
    retnet, record = known["mixer", "retnet"]
    strange = replace(retnet, cache=lambda params: CacheLayer("strange_attention"))
    monkeypatch.setitem(known, ("mixer", "retnet"), (strange, record))
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(gated({MIXER: RETNET}))
    (problem,) = caught.value.diagnostics
    assert problem.path == "layer_schedule[0].depth_gating" and "strange_attention" in problem.what.render()


def found(*schedule: dict[str, Any]) -> list[str]:
    spec = tiny_spec(layer_schedule=[{"template": "decoder", **entry} for entry in schedule])
    return [each.what.render(str) for each in report(es.normalize_to_ir(spec)) if each.rule == "depth_gating"]


def test_unusual_gates_are_reported() -> None:
    assert not found({}, {"depth_gating": {"capacity": 0.125}})
    (text,) = found({}, {"depth_gating": {"capacity": 0.05}})
    assert text.startswith("a layer processes 5 % of the tokens")
    (text,) = found({"depth_gating": {}}, {"depth_gating": {}})
    assert text.startswith("every layer is gated")
