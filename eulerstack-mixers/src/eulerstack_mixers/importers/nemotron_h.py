"""Nemotron-H: blocks of Mamba-2, attention without positions, plain ffns of relu², and experts without gates.

There a block is one norm and one of these; here a layer is a mixer and, where such a block follows, its ffn. Steps of
Mamba-2 never get smaller than `time_step_min`, which elsewhere is where training begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, StackRule, WeightRule
from eulerstack_mixers.importers.common import PLAIN_ACTIVATIONS, finish_spec, hf_activation
from eulerstack_mixers.importers.experts import (
    canonical_experts,
    dense_activation,
    expert_params,
    expert_rules,
    read_experts,
    read_groups,
    write_groups,
)
from eulerstack_mixers.importers.reader import ConfigReader
from eulerstack_mixers.importers.state_space import (
    canonical_state_space,
    mamba2_rules,
    mamba2_widths,
)

DEFAULTS = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "tie_word_embeddings": False,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "attention_dropout": 0.0,
    "intermediate_size": 21504,
    "mlp_hidden_act": "relu2",
    "mlp_bias": False,
    "ssm_state_size": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "mamba_hidden_act": "silu",
    "n_groups": 8,
    "conv_kernel": 4,
    "time_step_min": 0.001,
    "time_step_max": 0.1,
    "use_conv_bias": True,
    "chunk_size": 128,
    "n_routed_experts": 8,
    "moe_intermediate_size": 7688,
    "moe_shared_expert_intermediate_size": 7688,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "use_bias": False,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
}
DEFAULT_BLOCKS = ("linear_attention", "moe", "full_attention", "mlp")
DEFAULT_CHUNK = 128
# Names of blocks, the older ones and the letters of `hybrid_override_pattern` among them.
BLOCKS = {
    **dict.fromkeys(("linear_attention", "mamba", "M"), "mamba"),
    **dict.fromkeys(("full_attention", "attention", "*"), "attention"),
    **dict.fromkeys(("moe", "E"), "moe"),
    **dict.fromkeys(("mlp", "-"), "mlp"),
}
_OLDER = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_max": "time_step_max",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a NemotronHForCausalLM's config.json."""
    older = {new: config[old] for old, new in _OLDER.items() if old in config}
    reader = ConfigReader({**config, **older}, DEFAULTS)
    reader.require("mamba_hidden_act", "silu", msg("a state space's activation is silu"))
    reader.require("moe_latent_size", None, msg("experts of a latent have no words"))
    reader.require("tie_word_embeddings", False, msg("this family's class ties nothing"))
    d_model, n_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    n_kv_heads = reader.optional_integer("num_key_value_heads") or n_heads
    if reader.sound("num_attention_heads", "num_key_value_heads") and n_heads % n_kv_heads:
        reader.wrong("num_attention_heads", n_heads, msg("a multiple of num_key_value_heads, at most hidden_size"))
    model: dict[str, Any] = {
        "name": "nemotron_h",
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": reader.integer("max_position_embeddings"),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": reader.integer("head_dim"),
        "d_ff": reader.integer("intermediate_size"),
        "norm_eps": reader.positive("layer_norm_epsilon"),
        "initializer_range": reader.positive("initializer_range"),
    }
    pairs = _layers(reader)
    mixers = {
        "attention": {"attn_drop": reader.probability("attention_dropout")},
        "mamba": _state_space(reader, d_model),
    }
    activation, bias = reader.choice("mlp_hidden_act", PLAIN_ACTIVATIONS), reader.boolean("mlp_bias")
    ffns: dict[str, Mapping[str, Any]] = {
        "none": {"type": "none"},
        "mlp": {"type": "mlp", "activation": activation, "bias": bias},
    }
    if any(ffn == "moe" for _, ffn in pairs):
        reader.require("mlp_bias", False, msg("experts have no biases"))
        ffns["moe"] = _experts(reader, activation)
    layers = []
    for mixer, ffn in pairs:
        template = {
            "mixer": {"type": mixer, mixer: mixers[mixer]},
            "ffn": ffns[ffn],
            "norm": {"type": "rmsnorm", "position": "pre"},
        }
        layers.append((mixer if ffn == "none" else f"{mixer}_{ffn}", template))
    embedding = {"type": "learned", "positional": "none"}
    return finish_spec(reader, "nemotron_h", model, embedding, layers, {"type": "causal_lm", "tie_weights": False})


def _layers(reader: ConfigReader) -> list[tuple[str, str]]:
    """(mixer, ffn) of each layer here, from the blocks there."""
    key = next((name for name in ("layers_block_type", "layer_types", "hybrid_override_pattern")
                if reader[name] is not None), "layers_block_type")  # fmt: skip
    blocks: Any = reader[key] if reader[key] is not None else DEFAULT_BLOCKS
    if not isinstance(blocks, str if key == "hybrid_override_pattern" else (list, tuple)) or not blocks:
        reader.wrong(key, blocks, msg("the types of all blocks"))
        blocks = DEFAULT_BLOCKS
    layers: list[tuple[str, str]] = []
    for index, name in enumerate(blocks):
        kind = BLOCKS.get(name) if isinstance(name, str) else None
        if kind is None:
            reader.unknown(f"{key}[{index}]", name, BLOCKS)
        elif kind in ("mamba", "attention"):
            layers.append((kind, "none"))
        elif layers and layers[-1][1] == "none":
            layers[-1] = (layers[-1][0], kind)
        else:
            reader.unsupported(
                f"{key}[{index}]",
                msg("{kind} follows no mixer, with which a layer begins", kind=kind),
                msg("import a checkpoint in which a mamba or attention block stands before each of these"),
            )
    return layers or [("mamba", "none")]


def _state_space(reader: ConfigReader, d_model: int) -> dict[str, Any]:
    """The words of the Mamba-2 blocks."""
    n_heads, head_dim = reader.integer("mamba_num_heads"), reader.integer("mamba_head_dim")
    chunk, bias = reader.integer("chunk_size"), reader.boolean("use_bias")
    return {
        "variant": "mamba2",
        "d_state": reader.integer("ssm_state_size"),
        "d_conv": reader.integer("conv_kernel"),
        "expand": _ratio(n_heads * head_dim, d_model),
        "head_dim": head_dim,
        "n_groups": reader.integer("n_groups"),
        "dt_min": reader.positive("time_step_min"),
        "dt_floor": reader.positive("time_step_min"),
        "dt_max": reader.positive("time_step_max"),
        "chunk_size": None if chunk == DEFAULT_CHUNK else chunk,
        "conv_bias": reader.boolean("use_conv_bias"),
        "proj_bias": bias,
    }


def _ratio(width: int, d_model: int) -> float:
    """A number whose product with `d_model` is `width` in floating point too, where the quotient's last bit allows."""
    quotient = width / d_model
    near = (quotient, math.nextafter(quotient, 0.0), math.nextafter(quotient, math.inf))
    return next((ratio for ratio in near if ratio * d_model == width), quotient)


def _experts(reader: ConfigReader, activation: str) -> dict[str, Any]:
    """The ffn of a block with experts."""
    return read_experts(
        reader,
        "n_routed_experts",
        "moe_intermediate_size",
        **read_groups(reader),
        gated=False,
        activation=activation,
        shared_experts=1,
        d_shared=reader.integer("moe_shared_expert_intermediate_size"),
    )


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Nemotron-H that `ir` describes, if it describes one."""
    attention: Mapping[str, Any] = next(
        (layer.mixer.params for layer in ir.layers if layer.mixer.type == "attention"), {}
    )
    mixer: Mapping[str, Any] = next((layer.mixer.params for layer in ir.layers if layer.mixer.type == "mamba"), {})
    mlp: Mapping[str, Any] = next((layer.ffn.params for layer in ir.layers if layer.ffn.type == "mlp"), {})
    mixture = expert_params(ir)
    n_heads, head_dim = mamba2_widths(mixer, ir.model["d_model"])
    return {
        "vocab_size": ir.model["vocab_size"],
        "hidden_size": ir.model["d_model"],
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "layers_block_type": [name for layer in _blocks(ir) for name, _ in layer],
        "num_attention_heads": ir.model["n_heads"],
        "num_key_value_heads": ir.model["n_kv_heads"],
        "head_dim": ir.model["head_dim"],
        "max_position_embeddings": ir.model["max_seq_len"],
        "attention_dropout": attention.get("attn_drop", 0.0),
        "intermediate_size": ir.model["d_ff"],
        "mlp_hidden_act": hf_activation(dense_activation(ir)),
        "mlp_bias": mlp.get("bias", False),
        "ssm_state_size": mixer.get("d_state", 128),
        "mamba_num_heads": n_heads,
        "mamba_head_dim": head_dim,
        "n_groups": mixer.get("n_groups") or 1,
        "conv_kernel": mixer.get("d_conv", 4),
        "time_step_min": mixer.get("dt_min", 0.001),
        "time_step_max": mixer.get("dt_max", 0.1),
        "use_conv_bias": mixer.get("conv_bias", True),
        "chunk_size": mixer.get("chunk_size") or DEFAULT_CHUNK,
        "use_bias": mixer.get("proj_bias", False),
        "n_routed_experts": mixture.get("experts", 1),
        "moe_intermediate_size": mixture.get("d_expert", 1),
        "moe_shared_expert_intermediate_size": mixture.get("d_shared") or 1,
        **write_groups(mixture),
        "initializer_range": ir.model["initializer_range"],
        "layer_norm_epsilon": ir.model["norm_eps"],
        "dtype": ir.model["dtype"],
    }


def _blocks(ir: Any) -> list[list[tuple[str, str]]]:
    """For each layer here its blocks there: their types, and which part of the layer they are."""
    found = []
    for layer in ir.layers:
        blocks = [("full_attention" if layer.mixer.type == "attention" else "linear_attention", "mixer")]
        if layer.ffn.type != "none":
            blocks.append(("moe" if layer.ffn.type == "moe" else "mlp", "ffn"))
        found.append(blocks)
    return found


def rules(ir: Any) -> tuple[WeightRule | StackRule, ...]:
    """The table for the layers of `ir`, whose blocks are counted otherwise there."""
    table: list[WeightRule | StackRule] = [
        WeightRule("backbone.embeddings", ("model.embed_tokens",)),
        WeightRule("backbone.norm_f", ("model.norm",)),
        WeightRule("lm_head", ("lm_head",)),
    ]
    block = 0
    for index, parts in enumerate(_blocks(ir)):
        for kind, part in parts:
            there, here = f"backbone.layers.{block}", f"model.layers.{index}"
            table.append(WeightRule(f"{there}.norm", (f"{here}.{part}_norm",)))
            table += _BLOCK_RULES[kind](f"{there}.mixer", f"{here}.{part}")
            block += 1
    return tuple(table)


def _named(names: Sequence[str], there: str, here: str) -> tuple[WeightRule, ...]:
    return tuple(WeightRule(f"{there}.{name}", (f"{here}.{name}",)) for name in names)


_BLOCK_RULES: dict[str, Any] = {
    "linear_attention": mamba2_rules,
    "full_attention": lambda there, here: _named(("q_proj", "k_proj", "v_proj", "o_proj"), there, here),
    "mlp": lambda there, here: _named(("up_proj", "down_proj"), there, here),
    "moe": lambda there, here: (
        *expert_rules(there, here, inputs=("up_proj",), fused=False),
        *_named(("up_proj", "down_proj"), f"{there}.shared_experts", f"{here}.shared"),
    ),
}


def canonical(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` with one word for each meaning."""
    return canonical_experts(canonical_state_space(layer))


NEMOTRON_H = Importer(
    model_type="nemotron_h",
    architecture="NemotronHForCausalLM",
    summary="Nemotron-H and Nemotron 3",
    to_spec=to_spec,
    to_config=to_config,
    rules=rules,
    prefix="backbone.",
    pad_learns=True,
    canonical=canonical,
)
