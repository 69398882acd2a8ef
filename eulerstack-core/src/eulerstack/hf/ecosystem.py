"""The names under which the transformers ecosystem looks for what a spec says, derived from its architecture.

Torch-free, because `compile --print-config` needs it too; exported, because a loaded model checks its config with it.
"""

from typing import Any

from eulerstack.hf.tables import ByName

# Where a directory keeps the classes that transformers' Auto classes load.
AUTO_MAP = {
    "AutoConfig": "configuration_eulerstack.EulerStackConfig",
    "AutoModel": "modeling_eulerstack.EulerStackModel",
    "AutoModelForCausalLM": "modeling_eulerstack.EulerStackForCausalLM",
}

# Differences that a user may introduce on purpose after compiling: resized vocabularies and untied heads.
FREE_FIELDS = frozenset({"vocab_size", "tie_word_embeddings"})

ACTIVATION_NAMES: ByName = {
    "swiglu": "silu",
    "geglu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
}


def ecosystem_fields(architecture: dict[str, Any]) -> dict[str, Any]:
    """Config attributes (`hidden_size`, `num_hidden_layers`, …) that follow from `architecture` alone.

    Values of the first layer stand for what may differ between layers (`hidden_act`, `attention_dropout`).
    """
    model, embedding = architecture["model"], architecture["embedding"]
    first = architecture["blocks"][architecture["layers"][0]]
    norms = first["norm"]["params"]
    activation = first["ffn"]["params"].get("activation")
    fields = {
        "vocab_size": model["vocab_size"],
        "hidden_size": model["d_model"],
        "intermediate_size": model["d_ff"],
        "num_hidden_layers": len(architecture["layers"]),
        "num_attention_heads": model["n_heads"],
        "num_key_value_heads": model["n_kv_heads"],
        "head_dim": model["head_dim"],
        "max_position_embeddings": model["max_seq_len"],
        "initializer_range": model["initializer_range"],
        "rms_norm_eps": norms.get("eps", model["norm_eps"]),
        "hidden_act": ACTIVATION_NAMES.get(activation, activation),
        "attention_dropout": first["mixer"]["params"].get("attn_drop", 0.0),
        "tie_word_embeddings": embedding["tie_word_embeddings"],
    }
    if embedding["positional"] == "rope":
        fields["rope_parameters"] = rope_parameters(embedding, model["max_seq_len"])
    return fields


def rope_parameters(embedding: dict[str, Any], max_seq_len: int) -> dict[str, Any]:
    """The embedding's rotary words in transformers' spelling."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": embedding["rope_theta"]}
    if embedding["rope_partial_factor"] != 1.0:
        parameters["partial_rotary_factor"] = embedding["rope_partial_factor"]
    scaling = embedding["rope_scaling"]
    if scaling is None:
        return parameters
    parameters["rope_type"] = scaling["type"]
    for key, value in scaling.items():
        if key == "original_max_seq_len":
            # transformers' dynamic rule starts from max_position_embeddings and knows no other length.
            if scaling["type"] != "dynamic":
                parameters["original_max_position_embeddings"] = max_seq_len if value is None else value
        elif key != "type" and value is not None:
            parameters[key] = value
    return parameters
