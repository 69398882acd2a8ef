"""Small reference models of odd sizes, one or more a family, each with every number random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

# 3 heads of 24 channels, an ffn and a vocabulary that nothing divides
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
GPT2_SIZES: dict[str, Any] = {"vocab_size": 97, "n_embd": 72, "n_layer": 3, "n_head": 3, "n_positions": 64}
STATE_SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 72, "num_hidden_layers": 3, "state_size": 5}
BAMBA: dict[str, Any] = {"mamba_d_state": 5, "mamba_chunk_size": 8}
# The inner width, 60, is no multiple of the outer one.
NEMOTRON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 72,
    "intermediate_size": 100,
    "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "mlp"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "mamba_num_heads": 6,
    "mamba_head_dim": 10,
    "n_groups": 2,
    "ssm_state_size": 5,
    "chunk_size": 8,
    "n_routed_experts": 6,
    "moe_intermediate_size": 20,
    "moe_shared_expert_intermediate_size": 30,
    "routed_scaling_factor": 2.0,
}
# Many heads of the indexer, because where all of few are zero the choice of blocks is arbitrary.
V4: dict[str, Any] = {
    "num_attention_heads": 4,
    "head_dim": 16,
    "q_lora_rank": 20,
    "o_groups": 2,
    "o_lora_rank": 12,
    "moe_intermediate_size": 20,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "index_n_heads": 32,
    "index_head_dim": 14,
    "index_topk": 3,
    "sliding_window": 5,
    "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 6},
    "partial_rotary_factor": 0.5,
    "attn_implementation": "eager",
}
STATE_SPACES = ("Mamba", "FalconMamba", "Mamba2")
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
# The classes multiply groups of rows, whose strides must be whole multiples of 16 bytes.
QWEN_EXPERTS: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
PAIRS = 12  # rotated pairs of a head of 24


@dataclass(frozen=True)
class Case:
    """A reference model: its class's name without "ForCausalLM", and its config's words.

    Two flaws of classes in transformers 5.23, by which ours can't be measured. `padding_leaks`: padding changes what is
    computed for the tokens after it, because it enters a compressed block, or a projection's bias the short
    convolution. `steps_differ`: cached
    steps are not the full pass, Bamba's at all and Nemotron-H's where the floor of step sizes matters.
    """

    name: str
    family: str
    words: dict[str, Any]
    padding_leaks: bool = False
    steps_differ: bool = False

    @property
    def model_class(self) -> Callable[[Any], PreTrainedModel]:
        """The class that computes the reference."""
        return getattr(transformers, "GPT2LMHeadModel" if self.family == "GPT2" else f"{self.family}ForCausalLM")

    @property
    def model_type(self) -> str:
        """The family as config.json names it."""
        return str(getattr(transformers, f"{self.family}Config").model_type)

    def config(self) -> Any:
        """The reference's configuration."""
        special = {"GPT2": GPT2_SIZES, "NemotronH": {}, **dict.fromkeys(STATE_SPACES, STATE_SIZES)}
        sizes = special.get(self.family, SIZES)
        return getattr(transformers, f"{self.family}Config")(**{**sizes, **TOKENS, **self.words})

    def build(self, seed: int = 0) -> PreTrainedModel:
        """The reference in float32 with random weights, norms and biases among them."""
        model = self.model_class(self.config()).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                is_norm = parameter.dim() == 1 and name.endswith("weight")
                centre = 0.0 if self.family == "Gemma2" or not is_norm else 1.0
                scale = 0.25 if parameter.dim() == 1 else 0.09
                parameter.copy_(centre + scale * noise)
            for name, buffer in model.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
                elif name.endswith("tid2eid"):
                    draws = torch.rand(buffer.shape[0], model.config.n_routed_experts, generator=generator)
                    buffer.copy_(draws.argsort(-1)[:, : buffer.shape[1]])
        return model


@dataclass(frozen=True)
class Twins:
    """A reference, its checkpoint, the directory imported from that, and the model loaded from there."""

    case: Case
    reference: PreTrainedModel
    source: Path
    directory: Path
    ours: PreTrainedModel

    def use(self, implementation: str) -> None:
        """Selects the attention implementation of both; the reference keeps to eager where it has nothing else."""
        self.ours.set_attn_implementation(implementation)
        self.reference.set_attn_implementation(implementation if self.reference._supports_sdpa else "eager")


def _llama(name: str, **words: Any) -> Case:
    return Case(f"llama_{name}", "Llama", words)


def _deepseek(name: str, **words: Any) -> Case:
    """Dense layers unless `first_k_dense_replace` says otherwise; no two widths are equal."""
    sizes = {
        "num_key_value_heads": 3,
        "first_k_dense_replace": 3,
        "moe_intermediate_size": 20,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_group": 3,
        "topk_group": 2,
        "kv_lora_rank": 20,
        "q_lora_rank": 28,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 14,
        "v_head_dim": 10,
    }
    return Case(f"deepseek_v3_{name}", "DeepseekV3", {**sizes, **words})


def _rope(rope_type: str, **words: Any) -> dict[str, Any]:
    return {"rope_type": rope_type, "rope_theta": 5000.0, **words}


CASES = (
    _llama("mqa"),
    _llama("biases_tied", attention_bias=True, mlp_bias=True, tie_word_embeddings=True, num_key_value_heads=3),
    _llama("head_dim", head_dim=16, hidden_act="gelu", rms_norm_eps=1e-3),
    _llama("linear", rope_parameters=_rope("linear", factor=3.0)),
    _llama("dynamic", rope_parameters=_rope("dynamic", factor=2.0), max_position_embeddings=12),
    _llama("yarn", rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    _llama(
        "yarn_mscale",
        rope_parameters=_rope(
            "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.3, truncate=False
        ),
    ),
    _llama(
        "yarn_factor",
        rope_parameters=_rope(
            "yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.7, beta_fast=9.0, beta_slow=0.5
        ),
    ),
    _llama(
        "llama3",
        rope_parameters=_rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24
        ),
    ),
    _llama(
        "longrope",
        rope_parameters=_rope(
            "longrope",
            short_factor=[1.0 + 0.1 * pair for pair in range(PAIRS)],
            long_factor=[2.0 + 0.3 * pair for pair in range(PAIRS)],
            original_max_position_embeddings=12,
        ),
    ),
    Case("mistral_window", "Mistral", {"sliding_window": 5}),
    Case("mistral_global", "Mistral", {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": True}),
    Case("qwen2_windows", "Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    Case("qwen2_global", "Qwen2", {"num_key_value_heads": 3, "tie_word_embeddings": True}),
    Case(
        "qwen3_windows",
        "Qwen3",
        {
            "head_dim": 32,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    Case("qwen3_global", "Qwen3", {"head_dim": 16}),
    Case(
        "gemma2_caps",
        "Gemma2",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 20,
            "sliding_window": 5,
            "attn_logit_softcapping": 0.8,
            "final_logit_softcapping": 3.0,
        },
    ),
    Case(
        "gemma2_plain",
        "Gemma2",
        {
            "head_dim": 24,
            "query_pre_attn_scalar": 24,
            "attention_bias": True,
            "num_key_value_heads": 3,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    Case("gpt2", "GPT2", {}),
    Case(
        "gpt2_variant",
        "GPT2",
        {
            "n_inner": 100,
            "activation_function": "gelu",
            "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    ),
    Case("gpt2_unscaled", "GPT2", {"scale_attn_weights": False, "activation_function": "relu"}),
    Case("mamba", "Mamba", {}),
    Case(
        "mamba_variant",
        "Mamba",
        {
            "use_conv_bias": False,
            "conv_kernel": 3,
            "expand": 1,
            "time_step_rank": 7,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    ),
    Case("falcon_mamba", "FalconMamba", {"mixer_rms_eps": 1e-4}),
    Case("mamba2", "Mamba2", {"num_heads": 6, "head_dim": 24, "n_groups": 1, "chunk_size": 8}),
    Case("mamba2_groups", "Mamba2", {"num_heads": 12, "head_dim": 12, "n_groups": 3, "tie_word_embeddings": True}),
    Case("jamba", "Jamba", {"num_experts": 1, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 5}),
    Case(
        "jamba_variant",
        "Jamba",
        {
            "num_experts": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 0,
            "mamba_conv_bias": False,
            "mamba_dt_rank": 4,
            "rms_norm_eps": 1e-3,
            "tie_word_embeddings": True,
        },
    ),
    Case("jamba_experts", "Jamba", {"num_experts": 5, "attn_layer_period": 2, "attn_layer_offset": 1}),
    Case(
        "jamba_all_experts",
        "Jamba",
        {
            "num_experts": 3,
            "num_experts_per_tok": 3,
            "expert_layer_period": 1,
            "expert_layer_offset": 0,
            "attn_layer_period": 3,
            "attn_layer_offset": 2,
        },
    ),
    Case("bamba", "Bamba", {**BAMBA, "mamba_n_heads": 6, "attn_layer_indices": [1]}, steps_differ=True),
    Case(
        "bamba_variant",
        "Bamba",
        {
            **BAMBA,
            "mamba_n_heads": 12,
            "mamba_d_head": 12,
            "mamba_n_groups": 3,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rms_norm_eps": 1e-3,
            "tie_word_embeddings": True,
            "attn_layer_indices": [0, 2],
            "rope_parameters": _rope("linear", factor=3.0),
        },
        padding_leaks=True,
        steps_differ=True,
    ),
    Case("nemotron_h", "NemotronH", NEMOTRON),
    Case(
        "nemotron_h_variant",
        "NemotronH",
        {
            **NEMOTRON,
            "layers_block_type": ["full_attention", "mlp", "linear_attention", "linear_attention", "mlp"],
            "mlp_bias": True,
            "use_bias": True,
            "use_conv_bias": False,
            "mlp_hidden_act": "silu",
            "layer_norm_epsilon": 1e-3,
            "n_groups": 1,
            "time_step_min": 0.7,
            "time_step_max": 1.5,
        },
        padding_leaks=True,
        steps_differ=True,
    ),
    Case("deepseek_v4", "DeepseekV4", V4, padding_leaks=True),
    Case(
        "deepseek_v4_variant",
        "DeepseekV4",
        {
            **V4,
            "hc_mult": 2,
            "hc_sinkhorn_iters": 3,
            "scoring_func": "sigmoid",
            "swiglu_limit": 0.4,
            "layer_types": [
                "compressed_sparse_attention",
                "compressed_sparse_attention",
                "heavily_compressed_attention",
            ],
            "mlp_layer_types": ["moe", "hash_moe", "hash_moe"],
            "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
            "rms_norm_eps": 1e-3,
        },
        padding_leaks=True,
    ),
    Case(
        "deepseek_v4_windows",
        "DeepseekV4",
        {
            **V4,
            "layer_types": ["sliding_attention", "compressed_sparse_attention", "sliding_attention"],
            "rope_theta": 300.0,
            "compress_rope_theta": 900.0,
        },
        padding_leaks=True,
    ),
    Case("olmo2", "Olmo2", {}),
    _deepseek("plain"),
    _deepseek(
        "direct", q_lora_rank=None, attention_bias=True, tie_word_embeddings=True, rope_interleave=False, v_head_dim=24
    ),
    _deepseek(
        "yarn",
        rms_norm_eps=1e-3,
        rope_parameters=_rope(
            "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.3, beta_fast=9.0
        ),
    ),
    _deepseek("experts", first_k_dense_replace=1, n_shared_experts=2),
    _deepseek("one_group", first_k_dense_replace=0, n_group=1, topk_group=1, norm_topk_prob=False),
    _deepseek("open_groups", first_k_dense_replace=2, topk_group=3, routed_scaling_factor=1.0, hidden_act="gelu"),
    Case("mixtral", "Mixtral", {"num_local_experts": 5}),
    Case(
        "mixtral_window",
        "Mixtral",
        {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 5, "head_dim": 16, "hidden_act": "gelu"},
    ),
    Case("qwen2_moe", "Qwen2Moe", {**QWEN_EXPERTS, "shared_expert_intermediate_size": 17, "num_experts_per_tok": 3}),
    Case(
        "qwen2_moe_mixed",
        "Qwen2Moe",
        {
            **QWEN_EXPERTS,
            "shared_expert_intermediate_size": 30,
            "norm_topk_prob": True,
            "qkv_bias": False,
            "mlp_only_layers": [1],
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    Case("qwen3_moe", "Qwen3Moe", {**QWEN_EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    Case(
        "qwen3_moe_mixed",
        "Qwen3Moe",
        {
            **QWEN_EXPERTS,
            "head_dim": 16,
            "attention_bias": True,
            "decoder_sparse_step": 2,
            "use_sliding_window": True,
            "sliding_window": 4,
        },
    ),
    Case("olmo2_biases", "Olmo2", {"attention_bias": True, "num_key_value_heads": 3, "tie_word_embeddings": True}),
)
BY_NAME = {case.name: case for case in CASES}
ONE_A_FAMILY = tuple({case.family: case for case in CASES}.values())
