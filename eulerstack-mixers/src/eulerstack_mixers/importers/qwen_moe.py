"""Qwen2-MoE and Qwen3-MoE: Qwen with experts in all or some layers; in Qwen2-MoE beside a shared expert with a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, WeightRule
from eulerstack_mixers.importers.common import (
    GATED_ACTIVATIONS,
    LLAMA_RULES,
    ROTARY_BUFFERS,
    Layout,
    attention_rules,
    gated_decoder_config,
    gated_decoder_spec,
    hf_activation,
    layer_windows,
    read_windows,
    window_words,
)
from eulerstack_mixers.importers.experts import (
    canonical_experts,
    dense_activation,
    expert_layers,
    expert_params,
    expert_rules,
    read_experts,
    shared_rules,
)
from eulerstack_mixers.importers.reader import ConfigReader, is_integer

COMMON_DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "norm_topk_prob": False,
}
QWEN2_DEFAULTS = {
    **COMMON_DEFAULTS,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_experts_per_tok": 4,
    "num_experts": 60,
    "max_window_layers": 28,
    "qkv_bias": True,
}
QWEN3_DEFAULTS = {
    **COMMON_DEFAULTS,
    "intermediate_size": 6144,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 768,
    "num_experts_per_tok": 8,
    "num_local_experts": 128,
    "attention_bias": False,
}


def sparse_layers(reader: ConfigReader) -> list[bool]:
    """Which layers have experts: each `decoder_sparse_step`-th, counted from one, but for `mlp_only_layers`."""
    n_layers, step = reader.layers("num_hidden_layers"), reader.integer("decoder_sparse_step")
    dense = reader["mlp_only_layers"] or []
    if not isinstance(dense, list) or not all(is_integer(index) for index in dense):
        reader.wrong("mlp_only_layers", dense, msg("a list of whole numbers"))
        dense = []
    return [index not in dense and (index + 1) % step == 0 for index in range(n_layers)]


def _experts(reader: ConfigReader, number: str, **words: Any) -> list[dict[str, Any] | None]:
    """The ffn of each layer with experts, None where there are none."""
    ffn = read_experts(
        reader, number, "moe_intermediate_size", normalize_top_k=reader.boolean("norm_topk_prob"), **words
    )
    return [ffn if sparse else None for sparse in sparse_layers(reader)]


def qwen2_to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Qwen2MoeForCausalLM's config.json."""
    reader = ConfigReader(config, QWEN2_DEFAULTS)
    slides = reader.boolean("use_sliding_window")
    if not slides:
        # The class writes 0 for no window.
        reader.config["sliding_window"] = None
    first_full = reader.integer("max_window_layers", minimum=0) if slides else 0
    n_layers = reader.layers("num_hidden_layers")
    # By the class's rule every second one of the lower layers slides.
    windows = ["sliding_attention" if index % 2 == 0 and index < first_full else "full_attention"
               for index in range(n_layers)]  # fmt: skip
    shared = {
        "shared_experts": 1,
        "d_shared": reader.integer("shared_expert_intermediate_size"),
        "shared_gate": True,
    }
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=read_windows(reader, windows),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": reader.boolean("qkv_bias")},
        experts=_experts(reader, "num_experts", **shared),
    )
    return gated_decoder_spec(reader, "qwen2_moe", layout)


def qwen3_to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Qwen3MoeForCausalLM's config.json."""
    # The number of experts has two names, of which the older one wins as in the class.
    number = "num_experts" if config.get("num_experts") is not None else "num_local_experts"
    reader = ConfigReader(config, QWEN3_DEFAULTS)
    window = reader.optional_integer("sliding_window") if reader.boolean("use_sliding_window") else None
    bias = reader.boolean("attention_bias")
    layout = Layout(
        head_dim=reader.optional_integer("head_dim"),
        windows=[window] * reader.layers("num_hidden_layers"),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
        attention={"qkv_bias": bias, "o_bias": bias, "qk_norm": "head"},
        experts=_experts(reader, number),
    )
    return gated_decoder_spec(reader, "qwen3_moe", layout)


def _words(ir: Any) -> dict[str, Any]:
    """config.json's words that both families share, for `ir`."""
    params = expert_params(ir)
    return {
        "hidden_act": hf_activation(dense_activation(ir)),
        "moe_intermediate_size": params.get("d_expert", 1),
        "num_experts_per_tok": params.get("top_k", 1),
        "norm_topk_prob": params.get("normalize_top_k", True),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [index for index, sparse in enumerate(expert_layers(ir)) if not sparse],
    }


def qwen2_to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Qwen2-MoE that `ir` describes, if it describes one."""
    params, windows = expert_params(ir), window_words(ir)
    return gated_decoder_config(
        ir,
        **_words(ir),
        **windows,
        use_sliding_window=windows["sliding_window"] is not None,
        qkv_bias=ir.layers[0].mixer.params.get("qkv_bias", False),
        num_experts=params.get("experts", 1),
        shared_expert_intermediate_size=params.get("d_shared") or 1,
    )


def qwen3_to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Qwen3-MoE that `ir` describes, if it describes one."""
    window = layer_windows(ir)[0]
    return gated_decoder_config(
        ir,
        **_words(ir),
        sliding_window=window,
        use_sliding_window=window is not None,
        attention_bias=ir.layers[0].mixer.params.get("qkv_bias", False),
        num_experts=expert_params(ir).get("experts", 1),
    )


_MLP = "model.layers.{i}.mlp"
QWEN2_MOE = Importer(
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    summary="Qwen 1.5 and 2 with experts",
    to_spec=qwen2_to_spec,
    to_config=qwen2_to_config,
    rules=(
        *LLAMA_RULES,
        *expert_rules(_MLP),
        *shared_rules(f"{_MLP}.shared_expert"),
        WeightRule(f"{_MLP}.shared_expert_gate", ("model.layers.{i}.ffn.shared.gate",)),
    ),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_experts,
)
QWEN3_MOE = Importer(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    summary="Qwen 3 with experts",
    to_spec=qwen3_to_spec,
    to_config=qwen3_to_config,
    rules=(*LLAMA_RULES, *attention_rules(("q_norm", "k_norm")), *expert_rules(_MLP)),
    drop=ROTARY_BUFFERS,
    prefix="model.",
    canonical=canonical_experts,
)
