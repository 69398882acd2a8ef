"""Mixtral: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    OUTER_RULES,
    PRE_NORM_RULES,
    ROTARY_BUFFERS,
    Layout,
    attention_rules,
    gated_decoder_config,
    gated_decoder_spec,
    hf_activation,
    layer_windows,
)
from eulerstack_mixers.importers.experts import (
    canonical_experts,
    dense_activation,
    expert_params,
    expert_rules,
    read_experts,
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
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "attention_dropout": 0.0,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
# The class's own, where config.json says nothing.
ROPE_THETA = 1e6


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a MixtralForCausalLM's config.json."""
    reader = ConfigReader(config, {"rope_theta": ROPE_THETA, **DEFAULTS})
    n_layers = reader.layers("num_hidden_layers")
    reader.require("router_jitter_noise", 0, msg("the class jitters what experts read too"))
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=[reader.optional_integer("sliding_window")] * n_layers,
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        experts=[read_experts(reader, "num_local_experts", "intermediate_size")] * n_layers,
    )
    return gated_decoder_spec(reader, "mixtral", layout)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Mixtral that `ir` describes, if it describes one."""
    params = expert_params(ir)
    return gated_decoder_config(
        ir,
        intermediate_size=params.get("d_expert", ir.model["d_ff"]),
        hidden_act=hf_activation(dense_activation(ir)),
        sliding_window=layer_windows(ir)[0],
        num_local_experts=params.get("experts", 1),
        num_experts_per_tok=params.get("top_k", 1),
    )


MIXTRAL = Importer(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    summary="Mixtral 8x7B and what shares its class",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        *OUTER_RULES,
        *attention_rules(),
        *PRE_NORM_RULES,
        *expert_rules("model.layers.{i}.block_sparse_moe", inputs=("w1", "w3"), output="w2", fused=False),
    ),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_experts,
)
