"""Jamba: Mamba-1 layers with one of attention in every period, no positions, experts in some layers and a gated ffn in
the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, WeightRule
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    attention_rules,
    finish_spec,
    hf_activation,
    norm_rules,
)
from eulerstack_mixers.importers.experts import (
    canonical_experts,
    dense_activation,
    expert_layers,
    expert_params,
    expert_rules,
    read_experts,
)
from eulerstack_mixers.importers.reader import ConfigReader
from eulerstack_mixers.importers.state_space import canonical_without_steps, rank_of

DEFAULTS = {
    "vocab_size": 65536,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262144,
    "attention_dropout": 0.0,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a JambaForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    reader.require("hidden_act", "silu", msg("a state space's activation is silu"))
    d_model, n_heads, n_layers = (
        reader.integer("hidden_size"),
        reader.integer("num_attention_heads"),
        reader.layers("num_hidden_layers"),
    )
    n_kv_heads = reader.optional_integer("num_key_value_heads") or n_heads
    sound = reader.sound("hidden_size", "num_attention_heads", "num_key_value_heads")
    if sound and (d_model % n_heads or n_heads % n_kv_heads):
        reader.wrong("num_attention_heads", n_heads, msg("a multiple of num_key_value_heads that divides hidden_size"))
    attends = _periodic(reader, "attn_layer", n_layers)
    mixes = _periodic(reader, "expert_layer", n_layers)
    model: dict[str, Any] = {
        "name": "jamba",
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": reader.integer("max_position_embeddings"),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": reader.integer("intermediate_size"),
        "norm_eps": reader.positive("rms_norm_eps"),
        "initializer_range": reader.positive("initializer_range"),
    }
    activation = GATED_ACTIVATIONS["silu"]
    ffns: dict[bool, Mapping[str, Any]] = {False: {"type": "gated_mlp", "activation": activation}}
    if reader["num_experts"] != 1 and any(mixes):
        ffns[True] = read_experts(reader, "num_experts", "intermediate_size", normalize_top_k=False)
    attention = {"attn_drop": reader.probability("attention_dropout")}
    state_space = {
        "variant": "mamba1",
        "d_state": reader.integer("mamba_d_state"),
        "d_conv": reader.integer("mamba_d_conv"),
        "expand": reader.integer("mamba_expand"),
        "dt_rank": rank_of(reader, "mamba_dt_rank"),
        "conv_bias": reader.boolean("mamba_conv_bias"),
        "proj_bias": reader.boolean("mamba_proj_bias"),
        "bcdt_norm": "learned",
    }
    layers = []
    for attending, mixing in zip(attends, mixes, strict=True):
        name = "attention" if attending else "mamba"
        mixer = {"type": name, name: attention if attending else state_space}
        ffn = ffns.get(mixing, ffns[False])
        template = {"mixer": mixer, "ffn": ffn, "norm": {"type": "rmsnorm", "position": "pre"}}
        layers.append((f"{name}_experts" if ffn["type"] == "moe" else name, template))
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    embedding = {"type": "learned", "positional": "none"}
    return finish_spec(reader, "jamba", model, embedding, layers, head)


def _periodic(reader: ConfigReader, key: str, n_layers: int) -> list[bool]:
    """Which layers are of the kind whose period and offset stand under `key`."""
    period, offset = reader.integer(f"{key}_period"), reader.integer(f"{key}_offset", minimum=0)
    if reader.sound(f"{key}_period", f"{key}_offset") and offset >= period:
        reader.wrong(f"{key}_offset", offset, msg("a number below {word}", word=f"{key}_period"))
    return [index % period == offset for index in range(n_layers)]


def _period(key: str, chosen: list[bool]) -> dict[str, int]:
    """config.json's words for layers of a kind: those of the first two, and a period beyond the last where there is one
    or none."""
    found = [index for index, each in enumerate(chosen) if each]
    offset = found[0] if found else len(chosen)
    period = found[1] - offset if len(found) > 1 else max(len(chosen), offset) + 1
    return {f"{key}_period": period, f"{key}_offset": offset}


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Jamba that `ir` describes, if it describes one."""
    attends = [layer.mixer.type == "attention" for layer in ir.layers]
    attention = [layer.mixer.params for layer in ir.layers if layer.mixer.type == "attention"]
    others = (layer.mixer.params for layer in ir.layers if layer.mixer.type != "attention")
    mixer: Mapping[str, Any] = next(others, {})
    mixture = expert_params(ir)
    expand = mixer.get("expand", 2.0)
    return {
        "vocab_size": ir.model["vocab_size"],
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "hidden_size": ir.model["d_model"],
        "intermediate_size": ir.model["d_ff"],
        "num_hidden_layers": len(ir.layers),
        "num_attention_heads": ir.model["n_heads"],
        "num_key_value_heads": ir.model["n_kv_heads"],
        "hidden_act": hf_activation(dense_activation(ir)),
        "initializer_range": ir.model["initializer_range"],
        "rms_norm_eps": ir.model["norm_eps"],
        "max_position_embeddings": ir.model["max_seq_len"],
        "attention_dropout": attention[0]["attn_drop"] if attention else 0.0,
        "num_experts": mixture.get("experts", 1),
        "num_experts_per_tok": mixture.get("top_k", 1),
        **_period("attn_layer", attends),
        **_period("expert_layer", expert_layers(ir)),
        "mamba_d_state": mixer.get("d_state", 16),
        "mamba_d_conv": mixer.get("d_conv", 4),
        "mamba_expand": int(expand) if expand == int(expand) else expand,
        "mamba_dt_rank": mixer.get("dt_rank") or "auto",
        "mamba_conv_bias": mixer.get("conv_bias", True),
        "mamba_proj_bias": mixer.get("proj_bias", False),
        "dtype": ir.model["dtype"],
    }


def canonical(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` with one word for each meaning, and without what changes no function."""
    return canonical_experts(canonical_without_steps(layer))


_THERE, _HERE = "model.layers.{i}.mamba", "model.layers.{i}.mixer"
_NORMS = {"dt_layernorm": "dt_norm", "b_layernorm": "b_norm", "c_layernorm": "c_norm"}
JAMBA = Importer(
    model_type="jamba",
    architecture="JambaForCausalLM",
    summary="Jamba",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        WeightRule("model.embed_tokens", ("model.embed_tokens",)),
        WeightRule("model.final_layernorm", ("model.norm",)),
        WeightRule("lm_head", ("lm_head",)),
        *attention_rules(),
        WeightRule(_THERE, (_HERE,)),
        *(
            WeightRule(f"{_THERE}.{name}", (f"{_HERE}.{name}",))
            for name in ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj")
        ),
        *(WeightRule(f"{_THERE}.{there}", (f"{_HERE}.{here}",)) for there, here in _NORMS.items()),
        *(
            WeightRule(f"model.layers.{{i}}.feed_forward.{name}", (f"model.layers.{{i}}.ffn.{name}",))
            for name in ("gate_proj", "up_proj", "down_proj")
        ),
        *expert_rules("model.layers.{i}.feed_forward", router="router"),
        *norm_rules({"input_layernorm": "mixer_norm", "pre_ff_layernorm": "ffn_norm"}),
    ),
    prefix="model.",
    canonical=canonical,
)
