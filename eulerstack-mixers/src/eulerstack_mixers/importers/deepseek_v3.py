"""DeepSeek-V3: latent attention with interleaved rotary pairs, RMSNorm before each block, experts but for the first
layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, WeightRule
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    GATED_FFN_RULES,
    OUTER_RULES,
    PRE_NORM_RULES,
    ROTARY_BUFFERS,
    Layout,
    attention_rules,
    gated_decoder_config,
    gated_decoder_spec,
    hf_activation,
)
from eulerstack_mixers.importers.experts import (
    canonical_experts,
    dense_activation,
    expert_layers,
    expert_params,
    expert_rules,
    read_experts,
    read_groups,
    shared_rules,
    write_groups,
)
from eulerstack_mixers.importers.reader import ConfigReader, is_number

DEFAULTS = {
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_interleave": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
# The class gives the norms of both latents this eps, whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a DeepseekV3ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    n_layers = reader.layers("num_hidden_layers")
    dense = reader.integer("first_k_dense_replace", minimum=0)
    experts: list[dict[str, Any] | None] = [None] * n_layers
    if dense < n_layers:
        mixture = read_experts(
            reader,
            "n_routed_experts",
            "moe_intermediate_size",
            **read_groups(reader),
            shared_experts=reader.integer("n_shared_experts"),
        )
        experts[dense:] = [mixture] * (n_layers - dense)
    n_heads = reader.integer("num_attention_heads")
    reader.require("num_key_value_heads", n_heads, msg("every head of latent attention has keys of its own"))
    bias = reader.boolean("attention_bias")
    nope, rope = reader.integer("qk_nope_head_dim"), reader.integer("qk_rope_head_dim", minimum=2)
    layout = Layout(
        head_dim=nope,
        windows=[None] * n_layers,
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={
            "latent_dim": reader.integer("kv_lora_rank"),
            "q_latent_dim": reader.optional_integer("q_lora_rank"),
            "rope_head_dim": rope,
            "v_head_dim": reader.integer("v_head_dim"),
            "latent_norm_eps": LATENT_NORM_EPS,
            "qkv_bias": bias,
            "o_bias": bias,
        },
        embedding={"rope_interleaved": reader.boolean("rope_interleave")},
        experts=experts,
    )
    spec = gated_decoder_spec(reader, "deepseek_v3", layout)
    theirs = _temperature(reader["rope_scaling"] or reader["rope_parameters"] or {})
    scaling = spec["embedding"].get("rope_scaling") or {}
    # The language has yarn alone do this, and only where both of its slopes are given.
    if theirs != (_temperature(scaling) if scaling.get("type") == "yarn" else 1.0):
        for template in spec["layer_templates"].values():
            template["mixer"]["attention"]["scale"] = (nope + rope) ** -0.5 * theirs * theirs
    return spec


def _temperature(scaling: Mapping[str, Any]) -> float:
    """The number by whose square the class multiplies the scale of its scores, whatever the rotary type."""
    slope, factor = scaling.get("mscale_all_dim"), scaling.get("factor")
    default = scaling.get("rope_type", scaling.get("type", "default")) == "default"
    if default or not is_number(slope) or not slope or not is_number(factor) or factor <= 1:
        return 1.0
    return 0.1 * slope * math.log(factor) + 1.0


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the DeepSeek-V3 that `ir` describes, if it describes one."""
    attention = ir.layers[0].mixer.params
    rope_head_dim = attention.get("rope_head_dim") or 2
    mixture = expert_params(ir)
    d_expert = mixture.get("d_expert", 1)
    return gated_decoder_config(
        ir,
        # what the class itself makes of it
        head_dim=rope_head_dim,
        num_key_value_heads=ir.model["n_heads"],
        kv_lora_rank=attention.get("latent_dim") or 1,
        q_lora_rank=attention.get("q_latent_dim"),
        qk_rope_head_dim=rope_head_dim,
        qk_nope_head_dim=ir.model["head_dim"],
        v_head_dim=attention.get("v_head_dim") or ir.model["head_dim"],
        hidden_act=hf_activation(dense_activation(ir)),
        first_k_dense_replace=[*expert_layers(ir), True].index(True),
        n_routed_experts=mixture.get("experts", 1),
        moe_intermediate_size=d_expert,
        n_shared_experts=max(1, (mixture.get("d_shared") or 0) // d_expert),
        **write_groups(mixture),
        num_nextn_predict_layers=0,
        rope_interleave=ir.position.params.get("rope_interleaved", False),
        attention_bias=attention.get("qkv_bias", False),
    )


_RENAMED = {"kv_a_proj_with_mqa": "kv_a_proj", "q_a_layernorm": "q_a_norm", "kv_a_layernorm": "kv_a_norm"}

DEEPSEEK_V3 = Importer(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    summary="DeepSeek-V3",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        *OUTER_RULES,
        *attention_rules(("q_proj", "q_a_proj", "q_b_proj", "kv_b_proj", "o_proj")),
        *(
            WeightRule(f"model.layers.{{i}}.self_attn.{there}", (f"model.layers.{{i}}.mixer.{here}",))
            for there, here in _RENAMED.items()
        ),
        *GATED_FFN_RULES,
        *expert_rules("model.layers.{i}.mlp"),
        *shared_rules("model.layers.{i}.mlp.shared_experts"),
        *PRE_NORM_RULES,
    ),
    drop=ROTARY_BUFFERS,
    refused=(
        (
            ("model.layers.{i}.eh_proj", "model.layers.{i}.enorm", "model.layers.{i}.hnorm"),
            msg("has layers that predict further tokens (MTP), which this importer does not read"),
            msg("load and save the checkpoint with transformers, which leaves these layers out"),
        ),
    ),
    prefix="model.",
    canonical=canonical_experts,
)
