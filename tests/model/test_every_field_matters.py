"""Every declared field does something: another legal value has an effect, which `eulerstack.testing.effects` checks.

The table below must name every field of the assembled schema; a field that is missing from it fails the first test.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eulerstack.plugins import hookimpl, manager
from eulerstack.plugins.manager import PluginSource, Registry, get_registry
from eulerstack.plugins.sources import installed_sources
from eulerstack.testing.cases import Case
from eulerstack.testing.effects import EFFECTS, check
from eulerstack.testing.schema_words import fields_of
from tests.model.mixers import modules

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


def hint(word: str, value: Any, effect: str = "groups", **given: Any) -> Case:
    before = {f"training_hints.{key}": other for key, other in given.items()}
    return Case(effect, {f"training_hints.{word}": value}, before)


def exception(word: str, value: Any) -> Case:
    """A change to the one entry of optimizer_groups."""
    entry = {"role": "output", "lr_multiplier": 0.5}
    return hint("optimizer_groups", [{**entry, word: value}], optimizer_groups=[entry])


def rounding(word: str, value: Any) -> Case:
    place = "compatibility.quant_aware_training"
    return Case("rounding", {f"{place}.{word}": value}, {place: {"enabled": True}})


HYBRID = {"optimizer": "hybrid"}
MUP = {"parametrization": "mup", "base_width": 12}
COLUMN = {"name": "all", "templates": ["decoder"]}
TISSUE = {"columns": [COLUMN]}
LAYERNORM = {NORM: {"type": "layernorm"}}
PROBE = "training_hints.differentiation_objectives.usage_probe_coef"
PHASES = {
    "execution_modes": [{"name": "think", "max_tokens": 5}, {"name": "answer", "max_tokens": 4}],
    "transition": {"type": "special_token", "token": "<think_end>"},
}
TOKENIZER = {"model.vocab_size": 32000, "tokenizer_contract.pretrained": "bpe-32k"}
CASES: dict[str, Case] = {
    "schema_version": Case("refused", {"schema_version": 2}),
    "let": Case("parameters", {"let": {"width": 51}}, {"let": {"width": 50}, "model.d_ff": "${let.width}"}),
    "model.name": Case("source", {"model.name": "other"}),
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
    "model.family_hint": Case("findings", {"model.family_hint": "gpt2"}),
    "model.target_params": Case("findings", {"model.target_params": 1000}),
    "tokenizer_contract.type": Case("refused", {"tokenizer_contract.type": "other"}),
    "tokenizer_contract.pretrained": Case("tokenizer", TOKENIZER, {"model.vocab_size": 32000}),
    "tokenizer_contract.add_bos": Case("tokenizer", {"tokenizer_contract.add_bos": True}, TOKENIZER),
    "tokenizer_contract.add_eos": Case("tokenizer", {"tokenizer_contract.add_eos": True}, TOKENIZER),
    "tokenizer_contract.pad_token": Case("tokenizer", {"tokenizer_contract.pad_token": "<|eos|>"}, TOKENIZER),
    "embedding.type": Case("refused", {"embedding.type": "other"}),
    "embedding.positional": Case("function", {"embedding.positional": "none"}),
    "embedding.tie_word_embeddings": Case("parameters", {"embedding.tie_word_embeddings": False}),
    "embedding.scale": Case("function", {"embedding.scale": "sqrt_d_model"}),
    "embedding.rope_theta": Case("function", {"embedding.rope_theta": 500.0}),
    "embedding.rope_partial_factor": Case("function", {"embedding.rope_partial_factor": 0.5}),
    "embedding.rope_interleaved": Case("function", {"embedding.rope_interleaved": True}),
    "embedding.rope_scaling": Case("function", {"embedding.rope_scaling": {"type": "linear", "factor": 2.0}}),
    "mixer.type": Case("parameters", {"layer_templates.decoder.mixer": {"type": "retnet"}}),
    "ffn.type": Case("parameters", {"layer_templates.decoder.ffn": {"type": "mlp"}}),
    "norm.type": Case("parameters", {NORM: {"type": "layernorm"}}),
    "residual.type": Case("parameters", {RESIDUAL: {"type": "parallel"}}),
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
    # The step is refused where nothing is dilated, so the two words change together.
    "mixer.attention.window_mode": Case(
        "function",
        {f"{ATTENTION}.window_mode": "dilated", f"{ATTENTION}.window_dilation": 3},
        {f"{ATTENTION}.window_mode": "sliding", f"{ATTENTION}.window": 8},
    ),
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
    "state.kv_cache": Case("refused", {"layer_templates.decoder.state.kv_cache": False}),
    "state.ssm_state": Case("refused", {"layer_templates.decoder.state.ssm_state": True}),
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
    "head.type": Case("refused", {"head.type": "other"}),
    "head.causal_lm.tie_weights": Case("parameters", {"head.tie_weights": False}),
    "head.causal_lm.logit_softcap": Case("function", {"head.logit_softcap": 1.5}),
    "head.causal_lm.logit_scale": Case("function", {"head.logit_scale": 0.5}),
    "training_hints.dropout": Case("training", {"training_hints.dropout": 0.3}),
    "training_hints.seed": Case("initial", {"training_hints.seed": 7}),
    "training_hints.init": Case("initial", {"training_hints.init": "orthogonal"}),
    "training_hints.checkpointing": Case("recomputed", {"training_hints.checkpointing": True}),
    "training_hints.lr_peak": hint("lr_peak", 0.1),
    "training_hints.lr_floor_ratio": hint("lr_floor_ratio", 0.5, "trainer"),
    "training_hints.betas": hint("betas", [0.5, 0.6]),
    "training_hints.weight_decay": hint("weight_decay", 0.7),
    "training_hints.grad_clip": hint("grad_clip", 7.0, "trainer"),
    "training_hints.warmup_steps_ratio": hint("warmup_steps_ratio", 0.3, "trainer"),
    # Without a router the groups can't be made, and they say so.
    "training_hints.router_lr_multiplier": hint("router_lr_multiplier", 5.0, "groups_refused"),
    "training_hints.optimizer": hint("optimizer", "muon"),
    "training_hints.optimizer_groups.match": exception("match", "*.layers.1.*"),
    "training_hints.optimizer_groups.role": exception("role", "norm"),
    "training_hints.optimizer_groups.optimizer": exception("optimizer", "muon"),
    "training_hints.optimizer_groups.lr_multiplier": exception("lr_multiplier", 2.0),
    "training_hints.optimizer_groups.weight_decay": exception("weight_decay", 0.9),
    "training_hints.muon.lr_peak": hint("muon", {"lr_peak": 0.02}, **HYBRID),
    "training_hints.muon.momentum": hint("muon", {"momentum": 0.5}, **HYBRID),
    "training_hints.muon.nesterov": hint("muon", {"nesterov": False}, **HYBRID),
    "training_hints.muon.ns_steps": hint("muon", {"ns_steps": 3}, **HYBRID),
    "training_hints.muon.adjust_lr": hint("muon", {"adjust_lr": "original"}, **HYBRID),
    "training_hints.scaling.parametrization": hint("scaling", MUP, "function"),
    "training_hints.scaling.base_width": hint("scaling", {**MUP, "base_width": 9}, "function", scaling=MUP),
    "training_hints.differentiation_objectives.usage_probe_coef": Case(
        "loss", {PROBE: 0.3}, {PROBE: 0.1, FFN: {"type": "moe", "experts": 4, "top_k": 2}}
    ),
    "compatibility.compile_target": Case("refused", {"compatibility.compile_target": "other"}),
    "compatibility.dtype_policy": Case(
        "dtypes", {"compatibility.dtype_policy": "layered_safe"}, {"model.dtype": "bfloat16"}
    ),
    "compatibility.quant_aware_training.enabled": rounding("enabled", False),
    "compatibility.quant_aware_training.dtype": rounding("dtype", "fp8"),
    "compatibility.quant_aware_training.scope": rounding("scope", "ffn"),
    "compatibility.quant_aware_training.dequant_to": rounding("dequant_to", "float16"),
    "execution_modes.name": Case("named", {"execution_modes.0.name": "other"}, PHASES),
    "execution_modes.max_tokens": Case("generation", {"execution_modes.0.max_tokens": 2}, PHASES),
    "execution_modes.kv_share": Case("generation", {"execution_modes.0.kv_share": False}, PHASES),
    "execution_modes.visible_to_user": Case("generation", {"execution_modes.0.visible_to_user": False}, PHASES),
    "execution_modes.per_token_rationale": Case("generation", {"execution_modes.0.per_token_rationale": True}, PHASES),
    "execution_modes.loss_weight": Case("phase_loss", {"execution_modes.0.loss_weight": 0.5}, PHASES),
    "transition.type": Case("generation", {"transition": {}}, PHASES),
    "transition.token": Case(
        "tokenizer", {"transition.token": "<other>"}, {**TOKENIZER, **PHASES, "model.vocab_size": 32001}
    ),
    "tissue.connectivity": Case("fact", {"tissue": {**TISSUE, "connectivity": "full"}}, {"tissue": TISSUE}),
    **{
        f"tissue.columns.{word}": Case("fact", {"tissue": {"columns": [{**COLUMN, word: value}]}}, {"tissue": TISSUE})
        for word, value in {"name": "other", "role": "binding"}.items()
    },
    "tissue.columns.templates": Case(
        "fact",
        {"tissue": {"columns": [{"name": "all", "templates": ["decoder", "late"]}]}},
        {
            "tissue": TISSUE,
            "layer_templates.late": {"mixer": {"type": "attention", "attention": {}}, "ffn": {"type": "mlp"}},
            "layer_schedule": [{"template": "decoder"}, {"template": "late"}],
        },
    ),
    "embedding.rope_scaling.type": scaling("type", "dynamic", {"type": "linear", "factor": 4.0}),
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


def of_attention(case: Case) -> Case:
    """The same case for the scaling that a mixer gives its own rotary positions."""
    place = {"embedding.rope_scaling": f"{ATTENTION}.rope.scaling"}
    return Case(
        case.effect,
        {place[path]: value for path, value in case.changes.items()},
        {place[path]: value for path, value in case.given.items()},
    )


CASES |= {
    f"mixer.attention.rope.{path}": of_attention(case) for path, case in CASES.items() if path.startswith("scaling.")
}
CASES["mixer.attention.rope.scaling.type"] = of_attention(CASES["embedding.rope_scaling.type"])
CASES |= {path: case for mixer in modules() for path, case in mixer.CASES.items()}


def own_registry(*others: PluginSource) -> Registry:
    """The language with this project's plugins and `others`, whatever else is installed."""
    return Registry([*(source for source in installed_sources() if source.own), *others])


def missing_from(table: set[str], registry: Registry) -> set[str]:
    """The declared fields that the table leaves out."""
    return fields_of(registry)[0] - table


def test_the_table_names_every_declared_field() -> None:
    assert missing_from(set(CASES), own_registry()) == set()


def test_the_table_names_nothing_else() -> None:
    fields, places = fields_of(own_registry())
    assert set(CASES) - fields - places == set()


@pytest.mark.parametrize("path", CASES)
def test_another_value_has_the_effect_that_the_table_states(path: str) -> None:
    check(CASES[path])


class Planted:
    """A plugin whose norm is rmsnorm with a word that nothing reads."""

    @hookimpl
    def eulerstack_norms(self) -> tuple[Any, ...]:
        rmsnorm = get_registry().get("norm", "rmsnorm")
        return (replace(rmsnorm, name="planted", inline={**rmsnorm.inline, "dead": {"default": 0.0}}),)


PLANTED = PluginSource("planted", "eulerstack-dev", "1.0", Planted)


def test_a_planted_field_is_missing_from_the_table() -> None:
    assert missing_from(set(CASES), own_registry(PLANTED)) >= {"norm.planted.dead"}


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_planted_field_that_does_nothing_has_no_effect(effect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = own_registry(PLANTED)
    assert not registry.faults()
    monkeypatch.setattr(manager, "_registry", registry)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Case(effect, {f"{NORM}.dead": 1.0}, {NORM: {"type": "planted"}}))
