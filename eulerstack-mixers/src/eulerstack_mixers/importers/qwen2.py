"""Qwen2: Llama with biases on queries, keys and values; the upper layers may slide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Importer
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    LLAMA_RULES,
    ROTARY_BUFFERS,
    Layout,
    canonical_layer,
    gated_decoder_config,
    gated_decoder_spec,
    read_windows,
    window_words,
)
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "attention_dropout": 0.0,
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Qwen2ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=upper_windows(reader),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": True},
    )
    return gated_decoder_spec(reader, "qwen2", layout)


def upper_windows(reader: ConfigReader) -> list[int | None]:
    """The window of each layer by Qwen's rule: with `use_sliding_window`, the layers from `max_window_layers` on."""
    if not reader.boolean("use_sliding_window"):
        reader.config["sliding_window"] = None
    slides = reader["sliding_window"] is not None
    first = reader.integer("max_window_layers", minimum=0) if slides else 0
    return read_windows(
        reader,
        [
            "sliding_attention" if slides and index >= first else "full_attention"
            for index in range(reader.layers("num_hidden_layers"))
        ],
    )


def upper_window_words(ir: Any) -> dict[str, Any]:
    """config.json's words for the windows of `ir`."""
    words = window_words(ir)
    return {**words, "use_sliding_window": words["sliding_window"] is not None}


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Qwen2 that `ir` describes, if it describes one."""
    return gated_decoder_config(ir, **upper_window_words(ir))


QWEN2 = Importer(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    summary="Qwen 2 and 2.5, dense",
    to_spec=to_spec,
    to_config=to_config,
    rules=LLAMA_RULES,
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
