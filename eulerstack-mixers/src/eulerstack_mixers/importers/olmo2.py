"""Olmo 2: no norm before a block but one on its output, and norms over the whole width of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    GATED_FFN_RULES,
    OUTER_RULES,
    ROTARY_BUFFERS,
    Layout,
    attention_rules,
    canonical_layer,
    gated_decoder_config,
    gated_decoder_spec,
    norm_rules,
)
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of an Olmo2ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    reader.require("sliding_window", None, msg("Olmo 2 attends to every earlier token"))
    bias = reader.boolean("attention_bias")
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=[None] * reader.layers("num_hidden_layers"),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": bias, "o_bias": bias, "qk_norm": "full"},
        norm={"position": "output"},
    )
    return gated_decoder_spec(reader, "olmo2", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Olmo2 that `ir` describes, if it describes one."""
    return gated_decoder_config(ir, attention_bias=ir.layers[0].mixer.params.get("qkv_bias", False))


OLMO2 = Importer(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    summary="OLMo 2",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        *OUTER_RULES,
        *attention_rules(("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
        *GATED_FFN_RULES,
        *norm_rules({"post_attention_layernorm": "mixer_output_norm", "post_feedforward_layernorm": "ffn_output_norm"}),
    ),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
