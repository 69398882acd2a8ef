"""The names under which the transformers ecosystem looks for what a spec says, derived from its architecture.

Torch-free, because `compile --print-config` needs it too; exported, because a loaded model checks its config with it.
"""

from typing import Any

# Where a directory keeps the classes that transformers' Auto classes load.
AUTO_MAP = {
    "AutoConfig": "configuration_eulerstack.EulerStackConfig",
    "AutoModel": "modeling_eulerstack.EulerStackModel",
    "AutoModelForCausalLM": "modeling_eulerstack.EulerStackForCausalLM",
}

# Differences that a user may introduce on purpose after compiling: resized vocabularies and untied heads.
FREE_FIELDS = frozenset({"vocab_size", "tie_word_embeddings"})


def layers_of_stages(architecture: dict[str, Any]) -> list[list[int]]:
    """For each stage the indices of the blocks that its layers are made from."""
    return [layers_of_stage(stage) for stage in architecture["layers"]]


def layers_of_stage(stage: Any) -> list[int]:
    """The indices of the blocks that a stage's layers are made from, those of one stream after those of another."""
    if isinstance(stage, int):
        return [stage]
    return [block for part in stage.get("parallel", [stage]) for block in part["layers"]]


def ecosystem_fields(architecture: dict[str, Any]) -> dict[str, Any]:
    """Config attributes (`hidden_size`, `num_hidden_layers`, …) that follow from `architecture` alone.

    Those that repeat what a primitive says (`rope_parameters`, `hidden_act`, …) are the primitive's to name.
    """
    model = architecture["model"]
    return {
        "vocab_size": model["vocab_size"],
        "hidden_size": model["d_model"],
        "intermediate_size": model["d_ff"],
        "num_hidden_layers": sum(map(len, layers_of_stages(architecture))),
        "num_attention_heads": model["n_heads"],
        "num_key_value_heads": model["n_kv_heads"],
        "head_dim": model["head_dim"],
        "max_position_embeddings": model["max_seq_len"],
        "initializer_range": model["initializer_range"],
        "rms_norm_eps": model["norm_eps"],
        "hidden_act": None,
        "attention_dropout": 0.0,
        "tie_word_embeddings": architecture["embedding"]["tie_word_embeddings"],
        **architecture["config_fields"],
    }
