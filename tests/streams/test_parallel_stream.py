"""Parallel stages compute what their references do, by hand and in a model, and are what explain says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

import eulerstack as es
from eulerstack.cli.describe import describe
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.components.parallel_stream import ParallelStream
from eulerstack.dsl.source import as_spec, parse_text
from eulerstack.errors import EulerStackError
from eulerstack.ir import ParallelIR, from_data, normalize_to_ir, print_ir, to_data, to_spec
from eulerstack_mixers.reference import merges as reference
from tests.model.mixers.parallel import CROSS, DECODER, VARIANTS, parallel, spec, stream
from tests.model.specs import built, enliven, tokens

WIDTH = 12


class Scaled(nn.Module):
    """A stream: every token times a vector."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * self.weight


def by_hand(streams: int = 2, **words: Any) -> ParallelStream:
    stage = ParallelStream([Scaled(seed) for seed in range(streams)], d_model=WIDTH, **words).double()
    enliven(stage.merge)
    return stage


def hidden(batch: int = 2, time: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, time, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)


MERGES = {
    "concat": ({"merge_type": "concat"}, 3, reference.concat),
    "add": ({"merge_type": "add"}, 3, reference.add),
    "add_projected": ({"merge_type": "add", "merge_projection": True}, 2, reference.add),
    "gated": ({"merge_type": "gated"}, 3, reference.gated),
    "gated_projected": ({"merge_type": "gated", "merge_projection": True}, 2, reference.gated),
    "cross": (
        {"merge_type": "cross_attn", "merge_from": "b", "merge_to": "a", "stream_names": ["a", "b"], "n_heads": 3},
        2,
        lambda streams, weights: reference.cross_attn(streams, weights, 1, 0, 3, 3, 1e-5),
    ),
    "cross_unprojected": (
        {
            "merge_type": "cross_attn", "merge_projection": False, "merge_from": "a", "merge_to": "b",
            "stream_names": ["a", "b"], "n_heads": 2,
        },
        2,
        lambda streams, weights: reference.cross_attn(streams, weights, 0, 1, 2, 2, 1e-5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGES)
def test_a_stage_by_hand_is_the_reference_forward_and_backward(name: str) -> None:
    words, count, naive = MERGES[name]
    stage, states = by_hand(count, **words), hidden()
    output = stage(states)
    outputs = torch.stack([states * each.weight for each in stage.streams])
    expected = torch.stack([naive(outputs[:, row], dict(stage.merge.named_parameters())) for row in range(2)])
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-10)
    parameters = [states, *stage.parameters()]
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    for ours, theirs in zip(
        torch.autograd.grad((output * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_the_example_of_the_tutorial_runs_as_it_stands() -> None:
    fast, slow = nn.Linear(768, 768), nn.Linear(768, 768)
    stage = ParallelStream(
        [fast, slow], d_model=768, merge_type="concat", merge_projection=True, stream_names=["fast", "slow"]
    )
    states = torch.randn(2, 3, 768)
    expected = torch.cat((fast(states), slow(states)), -1) @ stage.merge.projection.weight.T
    torch.testing.assert_close(stage(states), expected)


def test_a_concatenation_by_hand_may_stay_as_wide_as_it_is() -> None:
    assert by_hand(3, merge_projection=False)(hidden()).shape == (2, 7, 3 * WIDTH)


def test_attention_between_streams_by_hand_is_causal() -> None:
    stage = by_hand(merge_type="cross_attn", merge_from="b", merge_to="a", stream_names=["a", "b"])
    states = hidden().detach()
    altered = states.clone()
    altered[:, 4] += 1.0
    before, after = stage(states), stage(altered)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize(
    ("count", "words", "what"),
    [
        (1, {}, "two or more"),
        (2, {"stream_names": ["a", "a"]}, "name of its own"),
        (2, {"stream_names": ["a"]}, "2 streams called"),
        (2, {"merge_type": "cross_attn", "stream_names": ["a", "b"], "merge_from": "a"}, "one of two streams"),
        (
            3,
            {"merge_type": "cross_attn", "stream_names": list("abc"), "merge_from": "a", "merge_to": "b"},
            "two streams",
        ),
        (2, {"merge_type": "cross_attn", "n_heads": 5}, "can't be divided"),
    ],
)
def test_a_stage_by_hand_refuses_what_does_not_fit(count: int, words: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        by_hand(count, **words)


@pytest.mark.parametrize("name", VARIANTS)
def test_text_json_and_price_are_those_of_the_model(name: str) -> None:
    ir = normalize_to_ir(VARIANTS[name])
    text = print_ir(ir)
    assert normalize_to_ir(parse_text(text, "printed.yml")) == ir and print_ir(normalize_to_ir(to_spec(ir))) == text
    assert from_data(json.loads(json.dumps(to_data(ir)))) == ir
    model = built(VARIANTS[name])
    assert model_cost(ir).total == sum(parameter.numel() for parameter in model.parameters())


def test_an_ir_holds_streams_and_their_merge() -> None:
    ir = normalize_to_ir(VARIANTS["parallel_cross"])
    stage = ir.stages[1]
    assert isinstance(stage, ParallelIR) and [each.name for each in stage.streams] == ["fast", "slow"]
    assert [layer.template for layer in ir.layers] == ["decoder", "mamba", "near", "decoder"]
    assert dict(stage.merge.params) == {"projection": True, "from": "fast", "to": "slow"}
    assert ir.final_norm is not None


def test_reserved_keys_keep_their_places_in_streams() -> None:
    made = spec(parallel({"type": "add", "future.m": 1}), DECODER)
    made["layer_schedule"][0]["experimental.stage"] = 2
    made["layer_schedule"][0]["parallel"][1]["vendor.acme.stream"] = 3
    made["layer_schedule"][0]["parallel"][1]["body"][1]["experimental.run"] = 4
    ir = normalize_to_ir(made)
    assert dict(ir.extensions) == {
        "layers[2..2].experimental.run": 4,
        "layers[0..2].merge.future.m": 1,
        "layers[0..2].parallel[1].vendor.acme.stream": 3,
        "layers[0..2].experimental.stage": 2,
    }
    assert normalize_to_ir(to_spec(ir)) == ir
    assert ir.sources["layers[2..2].experimental.run"] == "layer_schedule[0].parallel[1].body[1].experimental.run"


def test_explain_shows_streams_and_what_the_merge_costs() -> None:
    made = as_spec(spec(DECODER, parallel(CROSS), DECODER))
    ir = normalize_to_ir(made)
    data = describe(made, ir)
    assert [each["stream"] for each in data["schedule"][1]["parallel"]] == ["fast", "slow"]
    assert [group["stage"] and group["stage"]["stream"] for group in data["layers"]] == [
        None, "fast", "slow", "slow", None,
    ]  # fmt: skip
    (merge,) = data["stages"]
    assert (merge["type"], merge["first"], merge["last"]) == ("cross_attn", 1, 3)
    layers = sum(group["params"] * (group["last"] - group["first"] + 1) for group in data["layers"])
    assert layers + merge["params"] + data["params"]["embedding"] + 36 == data["params"]["total"]
    # Two keys and values of one head of 12 channels in float32.
    assert merge["cache_bytes_per_token"] == 2 * 12 * 4
    cache = built(made)(tokens(batch=1, time=9), use_cache=True).past_key_values
    assert cache.layers[4].keys.numel() + cache.layers[4].values.numel() == 9 * 2 * 12


def test_layer_types_have_an_entry_for_a_merge_that_attends() -> None:
    config = compile_ir(normalize_to_ir(VARIANTS["parallel_cross"]))
    assert config["num_hidden_layers"] == 4
    assert config["layer_types"] == [
        "full_attention", "eulerstack_state", "sliding_attention", "full_attention", "full_attention",
    ]  # fmt: skip
    assert config["architecture"]["layers"][1]["parallel"][1] == {"stream": "slow", "layers": [2, 0]}


def test_hidden_states_and_attentions_are_of_stages_and_of_all_attention() -> None:
    model = built(VARIANTS["parallel_attention"])
    model.set_attn_implementation("eager")
    output = model(tokens(), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and len(output.attentions) == 4
    # Weights of the merge, too, look at the past alone.
    assert all(torch.equal(weights, weights.tril()) for weights in output.attentions)


def test_packed_sequences_know_nothing_of_each_other() -> None:
    model, ids = built(VARIANTS["parallel_attention"]), tokens(batch=1, time=12)
    positions = torch.tensor([[*range(5), *range(7)]])
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits
        apart = [model(part, use_cache=False).logits for part in (ids[:, :5], ids[:, 5:])]
    torch.testing.assert_close(packed, torch.cat(apart, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["parallel_cross", "parallel_moe"])
def test_training_reaches_every_parameter_with_and_without_checkpointing(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = built(VARIANTS[name]).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(tokens(), labels=tokens(), use_cache=False).loss.backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0, key
        torch.testing.assert_close(gradient, gradients[1][key], atol=1e-6, rtol=1e-5, msg=key)


def test_a_merge_keeps_its_norms_and_gates_in_float32_where_the_spec_says_so() -> None:
    for merge in ({"type": "gated"}, CROSS):
        made = spec(parallel(merge)) | {"compatibility": {"dtype_policy": "layered_safe"}}
        made["model"]["dtype"] = "bfloat16"
        model = es.compile_to_hf_model(normalize_to_ir(made))
        safe = [each for name, each in model.named_parameters() if "gate.weight" in name or "_norm" in name]
        assert safe and all(each.dtype == torch.float32 for each in safe)
        assert torch.isfinite(model(tokens()).logits).all()
        cost = model_cost(normalize_to_ir(made))
        counted = sum(each.numel() for each in model.parameters() if each.dtype == torch.float32)
        assert cost.safe == counted


def test_dropout_and_the_residual_multiplier_reach_attention_between_streams() -> None:
    plain, dropped = spec(parallel(CROSS)), spec(parallel(CROSS))
    dropped["model"]["residual_multiplier"] = 0.5
    dropped["training_hints"] = {"dropout": 0.5}
    first, second = (built(each).model.layers[0].merge for each in (plain, dropped))
    outputs = [torch.randn(2, 5, 36) for _ in range(2)]
    with torch.no_grad():
        branch = first(outputs) - outputs[1]
        torch.testing.assert_close(second(outputs) - outputs[1], branch * 0.5, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(second.train()(outputs), second.eval()(outputs))


def test_beams_take_the_caches_of_their_streams_along() -> None:
    model, ids = built(VARIANTS["parallel_cross"]), tokens(batch=2, time=6)
    given = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), **given)
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **given)
    assert torch.equal(cached, plain)


def test_a_static_cache_serves_streams_of_attention() -> None:
    model, ids = built(VARIANTS["parallel_attention"]), tokens(batch=2, time=6)
    given = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, cache_implementation="static", **given), model.generate(ids, **given))


def test_an_export_holds_the_merge_it_uses_and_loads_again(tmp_path: Path) -> None:
    ir = normalize_to_ir(VARIANTS["parallel_cross"])
    es.compile_to_directory(ir, tmp_path / "model")
    source = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class CrossAttentionMerge(" in source and "class ParallelStream(" in source
    assert "GatedMerge" not in source and "ConcatMerge" not in source and "Integrator" not in source
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    with torch.no_grad():
        expected = es.compile_to_hf_model(ir)(tokens()).logits
        assert torch.equal(model(tokens()).logits, expected)
        model.save_pretrained(tmp_path / "again")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
        assert torch.equal(again(tokens()).logits, expected)
    es.compile_to_directory(normalize_to_ir(spec(DECODER)), tmp_path / "plain")
    assert "ParallelStream" not in (tmp_path / "plain" / "modeling_eulerstack.py").read_text(encoding="utf-8")


def test_a_cache_made_from_the_config_has_a_layer_for_every_slot() -> None:
    model = built(VARIANTS["parallel_twice"])
    cache = DynamicCache(config=model.config)
    assert len(cache.layers) == len(model.config.layer_types) == 8
    assert model.config.num_stages == 3


@pytest.mark.parametrize(
    ("entry", "path", "what"),
    [
        ({"parallel": parallel(CROSS)["parallel"]}, "layer_schedule[0].merge", "is missing"),
        (parallel({"type": "add"}, stream("a", "decoder")), "layer_schedule[0].parallel", "at least 2"),
        (
            parallel({"type": "add"}, stream("a", "decoder"), stream("a", "near")),
            "layer_schedule[0].parallel[1].stream",
            "two streams called a",
        ),
        (
            parallel({"type": "add"}, stream("a", "decoder"), stream("b", "neer")),
            "layer_schedule[0].parallel[1].body[0].template",
            "there is no template",
        ),
        (
            parallel({"type": "add"}, stream("a", "decoder"), {"stream": "b", "body": [parallel({"type": "add"})]}),
            "layer_schedule[0].parallel[1].body[0]",
            "",
        ),
        (parallel({**CROSS, "from": "fsat"}), "layer_schedule[0].merge.from", "no stream fsat"),
        (parallel({**CROSS, "to": "fast"}), "layer_schedule[0].merge.to", "same stream"),
        (parallel({"type": "cross_attn", "from": "fast"}), "layer_schedule[0].merge.to", "is missing"),
        (
            parallel(CROSS, stream("fast", "near"), stream("slow", "near"), stream("third", "near")),
            "layer_schedule[0].merge.type",
            "third",
        ),
        (parallel({"type": "concat", "from": "fast"}), "layer_schedule[0].merge.from", "a word of cross_attn"),
        (parallel({"type": "mean"}), "layer_schedule[0].merge.type", "no installed plugin provides the merge"),
        ({**DECODER, "merge": {"type": "add"}}, "layer_schedule[0].merge", "merge belongs to an entry with parallel"),
        (
            parallel(
                {"type": "add"},
                stream("a", "decoder"),
                {"stream": "b", "body": [{**DECODER, "override": {"norm": {"type": "layernorm"}}}]},
            ),
            "layer_schedule[0].parallel[1].body[0].override",
            "parameters",
        ),
        (
            parallel({"type": "add"}, stream("a", "decoder"), {"stream": "b", "body": [{**DECODER, "repeat": 10**5}]}),
            "layer_schedule[0]",
            "layers here",
        ),
    ],
)
def test_what_a_parallel_stage_says_wrong_is_said_where_it_stands(entry: dict[str, Any], path: str, what: str) -> None:
    with pytest.raises(EulerStackError) as caught:
        normalize_to_ir(spec(entry))
    problems = caught.value.diagnostics
    assert all(each.path.startswith(path) for each in problems) and what in problems[0].what.render(str)


def test_attention_between_streams_is_scaled_as_other_attention_is() -> None:
    made = spec(parallel(CROSS))
    assert built(made).model.layers[0].merge.attention.scaling == 12**-0.5
    made["training_hints"] = {"scaling": {"parametrization": "mup", "base_width": 12}}
    model = built(made).model.layers[0]
    assert model.merge.attention.scaling == model.streams[1].layers[1].mixer.scaling == 8 / 12
