"""Mistral: Llama with a sliding window in every layer, or in none."""

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
    layer_windows,
)
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "sliding_window": 4096,
    "attention_dropout": 0.0,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a MistralForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    window = reader.optional_integer("sliding_window")
    n_layers = reader.layers("num_hidden_layers")
    uniform = "full_attention" if window is None else "sliding_attention"
    reader.require("layer_types", [uniform] * n_layers, msg("Mistral's class treats every layer alike"))
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=[window] * n_layers,
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
    )
    return gated_decoder_spec(reader, "mistral", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Mistral that `ir` describes, if it describes one."""
    return gated_decoder_config(ir, sliding_window=layer_windows(ir)[0])


MISTRAL = Importer(
    model_type="mistral",
    architecture="MistralForCausalLM",
    summary="Mistral 7B and what shares its class",
    to_spec=to_spec,
    to_config=to_config,
    rules=LLAMA_RULES,
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
