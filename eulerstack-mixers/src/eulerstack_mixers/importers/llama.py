"""Llama: rotary positions, RMSNorm before each block, SwiGLU; biases where its config asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    LLAMA_RULES,
    ROTARY_BUFFERS,
    Layout,
    canonical_layer,
    gated_decoder_config,
    gated_decoder_spec,
)
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a LlamaForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    reader.require("sliding_window", None, msg("Llama attends to every earlier token"))
    bias = reader.boolean("attention_bias")
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=[None] * reader.layers("num_hidden_layers"),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": bias, "o_bias": bias},
        ffn={"bias": reader.boolean("mlp_bias")},
    )
    return gated_decoder_spec(reader, "llama", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Llama that `ir` describes, if it describes one."""
    first = ir.layers[0]
    return gated_decoder_config(
        ir,
        attention_bias=first.mixer.params.get("qkv_bias", False),
        mlp_bias=first.ffn.params.get("bias", False),
    )


LLAMA = Importer(
    model_type="llama",
    architecture="LlamaForCausalLM",
    summary="Llama 1–3 and what shares its class",
    to_spec=to_spec,
    to_config=to_config,
    rules=LLAMA_RULES,
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
