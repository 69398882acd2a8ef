"""Gemma 2: sandwich norms stored as offsets from 1, capped scores and logits, local and global layers in turn."""

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
    read_windows,
    window_words,
)
from eulerstack_mixers.importers.reader import LAYER_TYPES, ConfigReader

DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Gemma2ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    reader.require("use_bidirectional_attention", False, msg("the language describes causal decoders"))
    n_layers = reader.layers("num_hidden_layers")
    head_dim, bias = reader.integer("head_dim"), reader.boolean("attention_bias")
    scalar = reader.positive("query_pre_attn_scalar")
    attention: dict[str, Any] = {
        "qkv_bias": bias,
        "o_bias": bias,
        "softcap": reader.optional_positive("attn_logit_softcapping"),
    }
    if scalar != head_dim:
        attention["scale"] = scalar**-0.5
    layout = Layout(
        head_dim=head_dim,
        windows=read_windows(reader, [LAYER_TYPES[1 - index % 2] for index in range(n_layers)]),
        activation=reader.choice("hidden_activation", GATED_ACTIVATIONS),
        attention=attention,
        norm={"position": "sandwich", "zero_centered": True},
        embedding={"scale": "sqrt_d_model"},
        head={"logit_softcap": reader.optional_positive("final_logit_softcapping")},
    )
    return gated_decoder_spec(reader, "gemma2", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Gemma2 that `ir` describes, if it describes one."""
    attention = ir.layers[0].mixer.params
    config = gated_decoder_config(
        ir,
        attention_bias=attention.get("qkv_bias", False),
        query_pre_attn_scalar=_scalar(attention.get("scale"), ir.model["head_dim"]),
        attn_logit_softcapping=attention.get("softcap"),
        final_logit_softcapping=ir.head.params.get("logit_softcap"),
        **window_words(ir),
    )
    config["hidden_activation"] = config.pop("hidden_act")
    # the class builds a sliding mask even where no layer slides
    config["sliding_window"] = config["sliding_window"] or ir.model["max_seq_len"]
    return config


def _scalar(scale: float | None, head_dim: int) -> int | float:
    """The number whose inverse square root is exactly `scale`: a whole one where there is one."""
    if scale is None:
        return head_dim
    near = scale**-2
    return round(near) if round(near) ** -0.5 == scale else near


GEMMA2 = Importer(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    summary="Gemma 2",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        *OUTER_RULES,
        *attention_rules(),
        *GATED_FFN_RULES,
        *norm_rules(
            {
                "input_layernorm": "mixer_norm",
                "post_attention_layernorm": "mixer_output_norm",
                "pre_feedforward_layernorm": "ffn_norm",
                "post_feedforward_layernorm": "ffn_output_norm",
            }
        ),
    ),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
