"""Bamba: Mamba-2 layers with a few of attention, whose heads rotate by half, and a gated ffn in each."""

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
from eulerstack_mixers.importers.reader import ConfigReader, is_integer
from eulerstack_mixers.importers.rope import read_rope, write_rope
from eulerstack_mixers.importers.state_space import (
    DEFAULT_CHUNK,
    canonical_without_steps,
    mamba2_rules,
    mamba2_widths,
    refuse_step_limit,
)

DEFAULTS = {
    "vocab_size": 128000,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 262144,
    "attention_dropout": 0.0,
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
}
# The part of a head that the class rotates, whatever config.json says.
ROTATED = 0.5


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a BambaForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    reader.require("hidden_act", "silu", msg("a state space's activation is silu"))
    reader.require("z_loss_coefficient", 0, msg("the head's loss has no such part"))
    refuse_step_limit(reader)
    d_model, n_heads, n_layers = (
        reader.integer("hidden_size"),
        reader.integer("num_attention_heads"),
        reader.layers("num_hidden_layers"),
    )
    n_kv_heads = reader.optional_integer("num_key_value_heads") or n_heads
    sound = reader.sound("hidden_size", "num_attention_heads", "num_key_value_heads")
    if sound and (d_model % n_heads or n_heads % n_kv_heads):
        reader.wrong("num_attention_heads", n_heads, msg("a multiple of num_key_value_heads that divides hidden_size"))
    max_seq_len = reader.integer("max_position_embeddings")
    model: dict[str, Any] = {
        "name": "bamba",
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": max_seq_len,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": reader.integer("intermediate_size"),
        "norm_eps": reader.positive("rms_norm_eps"),
        "initializer_range": reader.positive("initializer_range"),
    }
    bias = reader.boolean("attention_bias")
    mixers = {
        "attention": {"attn_drop": reader.probability("attention_dropout"), "qkv_bias": bias, "o_bias": bias},
        "mamba": _state_space(reader, d_model),
    }
    ffn = {"type": "gated_mlp", "activation": GATED_ACTIVATIONS["silu"], "bias": reader.boolean("mlp_bias")}
    attending = reader["attn_layer_indices"] or []
    if not isinstance(attending, list) or not all(is_integer(index) for index in attending):
        reader.wrong("attn_layer_indices", attending, msg("a list of whole numbers"))
        attending = []
    layers = []
    for index in range(n_layers):
        name = "attention" if index in attending else "mamba"
        mixer = {"type": name, name: mixers[name]}
        layers.append((name, {"mixer": mixer, "ffn": ffn, "norm": {"type": "rmsnorm", "position": "pre"}}))
    embedding = {
        "type": "learned",
        "positional": "rope",
        "rope_partial_factor": ROTATED,
        **read_rope(reader, max_seq_len, ROTATED),
    }
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    return finish_spec(reader, "bamba", model, embedding, layers, head)


def _state_space(reader: ConfigReader, d_model: int) -> dict[str, Any]:
    """The words of the Mamba-2 layers."""
    n_heads, width = reader.integer("mamba_n_heads"), reader.integer("mamba_expand") * d_model
    automatic = reader["mamba_d_head"] in (None, "auto")
    head_dim = max(1, width // n_heads) if automatic else reader.integer("mamba_d_head")
    if reader.sound("mamba_n_heads", "mamba_d_head", "mamba_expand") and n_heads * head_dim != width:
        reader.wrong("mamba_n_heads", n_heads, msg("mamba_expand times hidden_size, divided by mamba_d_head"))
    chunk = reader.integer("mamba_chunk_size")
    return {
        "variant": "mamba2",
        "d_state": reader.integer("mamba_d_state"),
        "d_conv": reader.integer("mamba_d_conv"),
        "expand": reader.integer("mamba_expand"),
        "head_dim": head_dim,
        "n_groups": reader.integer("mamba_n_groups"),
        "chunk_size": None if chunk == DEFAULT_CHUNK else chunk,
        "conv_bias": reader.boolean("mamba_conv_bias"),
        "proj_bias": reader.boolean("mamba_proj_bias"),
    }


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Bamba that `ir` describes, if it describes one."""
    first = ir.layers[0]
    attention: Mapping[str, Any] = next(
        (layer.mixer.params for layer in ir.layers if layer.mixer.type == "attention"), {}
    )
    mixer: Mapping[str, Any] = next((layer.mixer.params for layer in ir.layers if layer.mixer.type == "mamba"), {})
    n_heads, head_dim = mamba2_widths(mixer, ir.model["d_model"])
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
        "attention_dropout": attention.get("attn_drop", 0.0),
        "attention_bias": attention.get("qkv_bias", False),
        "mlp_bias": first.ffn.params.get("bias", False),
        "attn_layer_indices": [index for index, layer in enumerate(ir.layers) if layer.mixer.type == "attention"],
        "mamba_n_heads": n_heads,
        "mamba_d_head": head_dim,
        "mamba_n_groups": mixer.get("n_groups") or 1,
        "mamba_d_state": mixer.get("d_state", 128),
        "mamba_d_conv": mixer.get("d_conv", 4),
        "mamba_expand": max(1, round(mixer.get("expand", 2.0))),
        "mamba_chunk_size": mixer.get("chunk_size") or DEFAULT_CHUNK,
        "mamba_conv_bias": mixer.get("conv_bias", True),
        "mamba_proj_bias": mixer.get("proj_bias", False),
        "rope_parameters": {
            **write_rope(ir.position.params, ir.model["max_seq_len"]),
            "partial_rotary_factor": ROTATED,
        },
        "dtype": ir.model["dtype"],
    }


BAMBA = Importer(
    model_type="bamba",
    architecture="BambaForCausalLM",
    summary="Bamba",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        WeightRule("model.embed_tokens", ("model.embed_tokens",)),
        WeightRule("model.final_layernorm", ("model.norm",)),
        WeightRule("lm_head", ("lm_head",)),
        *attention_rules(),
        *mamba2_rules("model.layers.{i}.mamba", "model.layers.{i}.mixer"),
        *(
            WeightRule(f"model.layers.{{i}}.feed_forward.{name}", (f"model.layers.{{i}}.ffn.{name}",))
            for name in ("gate_proj", "up_proj", "down_proj")
        ),
        *norm_rules({"input_layernorm": "mixer_norm", "pre_ff_layernorm": "ffn_norm"}),
    ),
    prefix="model.",
    canonical=canonical_without_steps,
)
