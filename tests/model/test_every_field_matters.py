"""Every declared field does something: another legal value gives another function, parameter count, loss or fact.

The table below must name every field of the assembled schema; a field that is missing from it fails the first test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.plugins.manager import get_registry
from eulerstack.schema.assemble import assemble
from tests.model.case import Case
from tests.model.mixers import modules
from tests.model.specs import built, changed, tiny_spec, tokens

ATTENTION = "layer_templates.decoder.mixer.attention"
FFN = "layer_templates.decoder.ffn"
NORM = "layer_templates.decoder.norm"
RESIDUAL = "layer_templates.decoder.residual"
YARN = {"type": "yarn", "factor": 4.0, "original_max_seq_len": 4096}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
    "original_max_seq_len": 16,
}
LLAMA3 = {"type": "llama3", "factor": 8.0, "original_max_seq_len": 16}
DYNAMIC = {"type": "dynamic", "factor": 4.0, "original_max_seq_len": 8}


def scaling(word: str, value: Any, base: dict[str, Any]) -> Case:
    return Case("function", {"embedding.rope_scaling": {**base, word: value}}, {"embedding.rope_scaling": base})


def attention(word: str, value: Any, effect: str = "function", **given: Any) -> Case:
    return Case(effect, {f"{ATTENTION}.{word}": value}, {f"{ATTENTION}.{key}": other for key, other in given.items()})


LAYERNORM = {NORM: {"type": "layernorm"}}
CASES: dict[str, Case] = {
    "model.name": Case("fact", {"model.name": "other"}),
    "model.d_model": Case("parameters", {"model.d_model": 42}),
    "model.vocab_size": Case("parameters", {"model.vocab_size": 60}),
    "model.max_seq_len": Case("fact", {"model.max_seq_len": 65}),
    "model.n_heads": Case("parameters", {"model.n_heads": 2}),
    "model.n_kv_heads": Case("parameters", {"model.n_kv_heads": 3}),
    "model.mlp_ratio": Case("parameters", {"model.mlp_ratio": 2.5}, {"model.d_ff": None}),
    "model.d_ff": Case("parameters", {"model.d_ff": 51}),
    "model.head_dim": Case("parameters", {"model.head_dim": 10}),
    "model.norm_eps": Case("function", {"model.norm_eps": 0.1}),
    "model.dtype": Case("fact", {"model.dtype": "bfloat16"}),
    "model.residual_multiplier": Case("function", {"model.residual_multiplier": 0.5}),
    "model.initializer_range": Case("initial", {"model.initializer_range": 0.1}),
    "model.family_hint": Case("fact", {"model.family_hint": "llama"}),
    "model.target_params": Case("fact", {"model.target_params": 1000}),
    "tokenizer_contract.type": Case("only", {}),
    "tokenizer_contract.pretrained": Case("fact", {"tokenizer_contract.pretrained": "gpt2"}),
    "tokenizer_contract.add_bos": Case("fact", {"tokenizer_contract.add_bos": True}),
    "tokenizer_contract.add_eos": Case("fact", {"tokenizer_contract.add_eos": True}),
    "tokenizer_contract.pad_token": Case("fact", {"tokenizer_contract.pad_token": "<pad>"}),
    "embedding.type": Case("only", {}),
    "embedding.positional": Case("function", {"embedding.positional": "none"}),
    "embedding.tie_word_embeddings": Case("parameters", {"embedding.tie_word_embeddings": False}),
    "embedding.scale": Case("function", {"embedding.scale": "sqrt_d_model"}),
    "embedding.rope_theta": Case("function", {"embedding.rope_theta": 500.0}),
    "embedding.rope_partial_factor": Case("function", {"embedding.rope_partial_factor": 0.5}),
    "embedding.rope_interleaved": Case("function", {"embedding.rope_interleaved": True}),
    "embedding.rope_scaling": Case("function", {"embedding.rope_scaling": {"type": "linear", "factor": 2.0}}),
    "layer_templates.mixer": Case(
        "parameters", {"layer_templates.decoder.mixer": {"type": "attention", "attention": {"qkv_bias": True}}}
    ),
    "layer_templates.ffn": Case("parameters", {"layer_templates.decoder.ffn": {"type": "mlp"}}),
    "layer_templates.norm": Case("parameters", {NORM: {"type": "layernorm"}}),
    "layer_templates.residual": Case("parameters", {RESIDUAL: {"type": "parallel"}}),
    "norm.position": Case("function", {f"{NORM}.position": "output"}),
    "norm.rmsnorm.eps": Case("function", {f"{NORM}.eps": 0.1}),
    "norm.rmsnorm.zero_centered": Case("function", {f"{NORM}.zero_centered": True}),
    "norm.layernorm.eps": Case("function", {f"{NORM}.eps": 0.1}, LAYERNORM),
    "norm.layernorm.bias": Case("parameters", {f"{NORM}.bias": False}, LAYERNORM),
    "residual.sequential.scaling": Case("function", {f"{RESIDUAL}.scaling": 0.5}),
    "residual.parallel.scaling": Case("function", {f"{RESIDUAL}.scaling": 0.5}, {f"{RESIDUAL}.type": "parallel"}),
    "mixer.attention.qkv_bias": attention("qkv_bias", True, "parameters"),
    "mixer.attention.o_bias": attention("o_bias", True, "parameters"),
    "mixer.attention.attn_drop": attention("attn_drop", 0.5, "training"),
    "mixer.attention.window": attention("window", 4),
    # With a window both modes slide; without one `sliding` is refused, which is all that the word says.
    "mixer.attention.window_mode": Case("refused", {f"{ATTENTION}.window_mode": "sliding"}),
    "mixer.attention.qk_norm": attention("qk_norm", "full", "parameters"),
    "mixer.attention.softcap": attention("softcap", 0.7),
    "mixer.attention.scale": attention("scale", 0.9),
    "mixer.attention.rope": attention("rope", False),
    "mixer.attention.rope.theta": attention("rope", {"theta": 99.0}),
    "mixer.attention.rope.partial_factor": attention("rope", {"partial_factor": 0.5}),
    "mixer.attention.rope.interleaved": attention("rope", {"interleaved": True}),
    "mixer.attention.rope.scaling": attention("rope", {"scaling": {"type": "linear", "factor": 3.0}}),
    "ffn.gated_mlp.activation": Case("function", {f"{FFN}.activation": "geglu"}),
    "ffn.gated_mlp.bias": Case("parameters", {f"{FFN}.bias": True}),
    "ffn.mlp.activation": Case("function", {f"{FFN}.activation": "relu2"}, {f"{FFN}.type": "mlp"}),
    "ffn.mlp.bias": Case("parameters", {f"{FFN}.bias": True}, {f"{FFN}.type": "mlp"}),
    "layer_templates.state": Case("refused", {"layer_templates.decoder.state": {"ssm_state": True}}),
    "state.kv_cache": Case("refused", {"layer_templates.decoder.state": {"kv_cache": False}}),
    "state.ssm_state": Case("refused", {"layer_templates.decoder.state": {"ssm_state": True}}),
    "layer_schedule.template": Case(
        "function",
        {"layer_schedule.0.template": "windowed"},
        {
            "layer_templates.windowed": {
                "mixer": {"type": "attention", "attention": {"window": 3}},
                "ffn": {"type": "gated_mlp"},
            }
        },
    ),
    "layer_schedule.repeat": Case("parameters", {"layer_schedule.0.repeat": 2}),
    "layer_schedule.override": Case("function", {"layer_schedule.0.override": {"residual": {"scaling": 0.5}}}),
    "override.residual.scaling": Case("function", {"layer_schedule.0.override": {"residual": {"scaling": 0.25}}}),
    "override.attention.window": Case("function", {"layer_schedule.0.override": {"attention": {"window": 4}}}),
    "override.attention.attn_drop": Case("training", {"layer_schedule.0.override": {"attention": {"attn_drop": 0.4}}}),
    "override.norm.type": Case(
        "function",
        {"layer_schedule.0.override": {"norm": {"type": "rmsnorm"}}},
        {NORM: {"type": "layernorm", "bias": False}},
    ),
    "override.norm.position": Case("function", {"layer_schedule.0.override": {"norm": {"position": "output"}}}),
    "override.ffn.activation": Case("function", {"layer_schedule.0.override": {"ffn": {"activation": "relu"}}}),
    "head.type": Case("only", {}),
    "head.causal_lm.tie_weights": Case("parameters", {"head.tie_weights": False}),
    "head.causal_lm.logit_softcap": Case("function", {"head.logit_softcap": 1.5}),
    "head.causal_lm.logit_scale": Case("function", {"head.logit_scale": 0.5}),
    "training_hints.dropout": Case("training", {"training_hints.dropout": 0.3}),
    "training_hints.seed": Case("initial", {"training_hints.seed": 7}),
    "compatibility.compile_target": Case("only", {}),
    "scaling.linear.factor": scaling("factor", 3.0, {"type": "linear", "factor": 2.0}),
    "scaling.dynamic.factor": scaling("factor", 6.0, DYNAMIC),
    "scaling.dynamic.original_max_seq_len": scaling("original_max_seq_len", 12, DYNAMIC),
    "scaling.yarn.factor": scaling("factor", 6.0, YARN),
    "scaling.yarn.original_max_seq_len": scaling("original_max_seq_len", 1024, YARN),
    "scaling.yarn.beta_fast": scaling("beta_fast", 8.0, YARN),
    "scaling.yarn.beta_slow": scaling("beta_slow", 4.0, YARN),
    "scaling.yarn.mscale": scaling("mscale", 0.5, {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8}),
    "scaling.yarn.mscale_all_dim": scaling("mscale_all_dim", 0.5, {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8}),
    "scaling.yarn.attention_factor": scaling("attention_factor", 1.7, YARN),
    "scaling.yarn.truncate": scaling("truncate", False, YARN),
    "scaling.longrope.short_factor": Case(
        "function",
        {"embedding.rope_scaling": {**LONGROPE, "original_max_seq_len": 32, "short_factor": [2.0] * 6}},
        {"embedding.rope_scaling": {**LONGROPE, "original_max_seq_len": 32}},
    ),
    "scaling.longrope.long_factor": scaling("long_factor", [9.0] * 6, LONGROPE),
    "scaling.longrope.original_max_seq_len": scaling("original_max_seq_len", 40, LONGROPE),
    "scaling.longrope.factor": scaling("factor", 9.0, LONGROPE),
    "scaling.longrope.attention_factor": scaling("attention_factor", 1.7, LONGROPE),
    "scaling.llama3.factor": scaling("factor", 2.0, LLAMA3),
    "scaling.llama3.low_freq_factor": scaling("low_freq_factor", 0.5, LLAMA3),
    "scaling.llama3.high_freq_factor": scaling("high_freq_factor", 40.0, LLAMA3),
    "scaling.llama3.original_max_seq_len": scaling("original_max_seq_len", 64, LLAMA3),
}
CASES |= {path: case for mixer in modules() for path, case in mixer.CASES.items()}


def declared_fields() -> Iterator[str]:
    """The path of every field that the assembled schema and the installed primitives declare."""
    registry = get_registry()
    schema = assemble(registry)
    inline = {word for primitive in registry.primitives() for word in primitive.inline}
    for section in ("model", "tokenizer_contract", "embedding", "training_hints", "compatibility", "head"):
        words = schema["properties"][section]["properties"]
        yield from (f"{section}.{word}" for word in words if section not in ("embedding", "head") or word not in inline)
    for primitive in registry.primitives():
        if primitive.name.startswith("vendor."):
            continue
        if primitive.kind == "position":
            yield from (f"embedding.{word}" for word in primitive.inline)
            continue
        place = f"{primitive.kind}.{primitive.name}"
        if primitive.kind == "head":
            place = f"head.{primitive.name}"
        words = {**(primitive.schema or {}).get("properties", {}), **primitive.inline}
        yield from (f"{place}.{word}" for word in words)
        for word, rules in words.items():
            yield from (f"{place}.{word}.{inner}" for inner in rules.get("properties", {}))
    rope = registry.get("position", "rope").inline["rope_scaling"]
    for branch in rope["allOf"]:
        kind = branch["if"]["properties"]["type"]["const"]
        yield from (f"scaling.{kind}.{word}" for word in branch["then"]["properties"] if word != "type")
    yield from ("layer_templates.mixer", "layer_templates.ffn", "layer_templates.norm", "layer_templates.residual")
    yield from ("layer_templates.state", "state.kv_cache", "state.ssm_state", "norm.position")
    yield from ("layer_schedule.template", "layer_schedule.repeat", "layer_schedule.override")
    yield from ("override.residual.scaling", "override.attention.window", "override.attention.attn_drop")
    yield from ("override.norm.type", "override.norm.position", "override.ffn.activation")


def test_the_table_names_every_declared_field_and_no_other() -> None:
    assert set(CASES) == set(declared_fields())


def test_the_template_and_schedule_fields_listed_here_are_the_schemas() -> None:
    text = str(assemble(get_registry()))
    template = ("mixer", "ffn", "norm", "residual", "state", "kv_cache", "ssm_state")
    for word in (*template, "template", "repeat", "override"):
        assert f"'{word}'" in text


@pytest.mark.parametrize("path", CASES)
def test_another_value_has_the_effect_that_the_table_states(path: str) -> None:
    case = CASES[path]
    before = changed(tiny_spec(), case.given)
    after = changed(before, case.changes)
    if case.effect == "only":
        # A field with a single legal value today: any other one must be refused.
        section, word = path.split(".")[0], path.split(".")[-1]
        with pytest.raises(es_errors()):
            es.validate_v2(changed(before, {f"{section}.{word}": "something_else"}))
        return
    if case.effect == "refused":
        es.validate_v2(before)
        with pytest.raises(es_errors()):
            es.validate_v2(after)
        return
    old, new = es.normalize_to_ir(before), es.normalize_to_ir(after)
    assert compile_ir(old) != compile_ir(new)
    if case.effect == "parameters":
        assert es.count_parameters(old) != es.count_parameters(new)
    if case.effect == "fact":
        return
    if case.effect == "initial":
        first, second = es.compile_to_hf_model(old).state_dict(), es.compile_to_hf_model(new).state_dict()
        assert any(not torch.equal(first[name], second[name]) for name in first)
        return
    first, second = built(before), built(after)
    ids = tokens(time=24)
    if case.effect == "cost":
        # Another computation of the same function: the price of a prompt changes, the numbers don't.
        prices = [model_cost(ir).prefill_flops(context=24) for ir in (old, new)]
        assert prices[0] != prices[1]
        with torch.no_grad():
            torch.testing.assert_close(first(ids).logits, second(ids).logits, atol=1e-5, rtol=0)
        return
    if case.effect == "training":
        with torch.no_grad():
            assert torch.equal(first(ids).logits, second(ids).logits)
            torch.manual_seed(0)
            assert not torch.allclose(first.train()(ids).logits, second.train()(ids).logits, atol=1e-3)
        return
    assert sum(p.numel() for p in first.parameters()) == es.count_parameters(old)
    assert sum(p.numel() for p in second.parameters()) == es.count_parameters(new)
    with torch.no_grad():
        a, b = first(ids).logits, second(ids).logits
    assert a.shape != b.shape or (a - b).abs().max() > 1e-4


def es_errors() -> type[Exception]:
    from eulerstack.errors import EulerStackError

    return EulerStackError
