"""Qwen3: a head size of its own and a norm over each head of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Importer
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    LLAMA_RULES,
    ROTARY_BUFFERS,
    Layout,
    attention_rules,
    canonical_layer,
    gated_decoder_config,
    gated_decoder_spec,
)
from eulerstack_mixers.importers.qwen2 import DEFAULTS as QWEN2_DEFAULTS
from eulerstack_mixers.importers.qwen2 import upper_window_words, upper_windows
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {**QWEN2_DEFAULTS, "head_dim": 128, "attention_bias": False}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Qwen3ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    bias = reader.boolean("attention_bias")
    layout = Layout(
        head_dim=reader.integer("head_dim"),
        windows=upper_windows(reader),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": bias, "o_bias": bias, "qk_norm": "head"},
    )
    return gated_decoder_spec(reader, "qwen3", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Qwen3 that `ir` describes, if it describes one."""
    bias = ir.layers[0].mixer.params.get("qkv_bias", False)
    return gated_decoder_config(ir, attention_bias=bias, **upper_window_words(ir))


QWEN3 = Importer(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    summary="Qwen 3, dense",
    to_spec=to_spec,
    to_config=to_config,
    rules=(*LLAMA_RULES, *attention_rules(("q_norm", "k_norm"))),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_layer,
)
