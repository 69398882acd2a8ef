"""Jamba without experts: Mamba-1 layers with one of attention in every period, no positions, a gated ffn in each."""

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
from eulerstack_mixers.importers.reader import ConfigReader
from eulerstack_mixers.importers.state_space import canonical_state_space, rank_of

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
    reader.require("num_experts", 1, msg("Jamba's mixture of experts has no words yet"))
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
    period, offset = reader.integer("attn_layer_period"), reader.integer("attn_layer_offset", minimum=0)
    if reader.sound("attn_layer_period", "attn_layer_offset") and offset >= period:
        reader.wrong("attn_layer_offset", offset, msg("a number below attn_layer_period"))
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
    shared = {
        "ffn": {"type": "gated_mlp", "activation": GATED_ACTIVATIONS["silu"]},
        "norm": {"type": "rmsnorm", "position": "pre"},
    }
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
    templates = {
        "attention": {"mixer": {"type": "attention", "attention": attention}, **shared},
        "mamba": {"mixer": {"type": "mamba", "mamba": state_space}, **shared},
    }
    names = ["attention" if index % period == offset else "mamba" for index in range(n_layers)]
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    embedding = {"type": "learned", "positional": "none"}
    return finish_spec(reader, "jamba", model, embedding, [(name, templates[name]) for name in names], head)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Jamba that `ir` describes, if it describes one."""
    first = ir.layers[0]
    attention = [index for index, layer in enumerate(ir.layers) if layer.mixer.type == "attention"]
    others = (layer.mixer.params for layer in ir.layers if layer.mixer.type != "attention")
    mixer: Mapping[str, Any] = next(others, {})
    seen = len(ir.layers)
    offset = attention[0] if attention else seen
    period = attention[1] - attention[0] if len(attention) > 1 else max(seen, offset) + 1
    expand = mixer.get("expand", 2.0)
    return {
        "vocab_size": ir.model["vocab_size"],
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "hidden_size": ir.model["d_model"],
        "intermediate_size": ir.model["d_ff"],
        "num_hidden_layers": len(ir.layers),
        "num_attention_heads": ir.model["n_heads"],
        "num_key_value_heads": ir.model["n_kv_heads"],
        "hidden_act": hf_activation(first.ffn.params.get("activation", "swiglu")),
        "initializer_range": ir.model["initializer_range"],
        "rms_norm_eps": ir.model["norm_eps"],
        "max_position_embeddings": ir.model["max_seq_len"],
        "attention_dropout": ir.layers[attention[0]].mixer.params["attn_drop"] if attention else 0.0,
        "num_experts": 1,
        "num_experts_per_tok": 1,
        "attn_layer_period": period,
        "attn_layer_offset": offset,
        "mamba_d_state": mixer.get("d_state", 16),
        "mamba_d_conv": mixer.get("d_conv", 4),
        "mamba_expand": int(expand) if expand == int(expand) else expand,
        "mamba_dt_rank": mixer.get("dt_rank") or "auto",
        "mamba_conv_bias": mixer.get("conv_bias", True),
        "mamba_proj_bias": mixer.get("proj_bias", False),
        "dtype": ir.model["dtype"],
    }


def canonical(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` without what changes no function; the class has no words for the first step sizes, nor for a rotation."""
    result = {name: dict(part) for name, part in canonical_state_space(layer).items()}
    if result["mixer"]["type"] == "mamba":
        for word in ("dt_min", "dt_max"):
            result["mixer"].pop(word, None)
    return result


_THERE, _HERE = "model.layers.{i}.mamba", "model.layers.{i}.mixer"
_NORMS = {"dt_layernorm": "dt_norm", "b_layernorm": "b_norm", "c_layernorm": "c_norm"}
JAMBA = Importer(
    model_type="jamba",
    architecture="JambaForCausalLM",
    summary="Jamba, dense",
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
        *norm_rules({"input_layernorm": "mixer_norm", "pre_ff_layernorm": "ffn_norm"}),
    ),
    prefix="model.",
    canonical=canonical,
)
