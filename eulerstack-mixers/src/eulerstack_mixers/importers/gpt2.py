"""GPT-2: learned positions, LayerNorm, plain GELU ffn, biases everywhere; matrices stored [in, out], q, k, v fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, WeightRule
from eulerstack_mixers.importers.common import PLAIN_ACTIVATIONS, canonical_layer, finish_spec, hf_activation
from eulerstack_mixers.importers.reader import ConfigReader

DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
# names that transformers takes for the same fields
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a GPT2LMHeadModel's config.json."""
    reader = ConfigReader({_ALIASES.get(key, key): value for key, value in config.items()}, DEFAULTS)
    reader.require("add_cross_attention", False, msg("the language describes decoders without an encoder"))
    reader.require("reorder_and_upcast_attn", False, msg("scores are always taken in the order of the other classes"))
    d_model, n_heads, n_layers = reader.integer("n_embd"), reader.integer("n_head"), reader.layers("n_layer")
    if reader.sound("n_embd", "n_head") and d_model % n_heads:
        reader.wrong("n_embd", d_model, msg("a multiple of n_head"))
    dropout = reader.probability("resid_pdrop")
    reader.require("embd_pdrop", dropout, msg("one dropout rate holds for embeddings and branches"))
    model: dict[str, Any] = {
        "name": "gpt2",
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": reader.integer("n_positions"),
        "n_heads": n_heads,
        "d_ff": reader.optional_integer("n_inner") or 4 * d_model,
        "norm_eps": reader.positive("layer_norm_epsilon"),
        "initializer_range": reader.positive("initializer_range"),
    }
    activation = reader.choice("activation_function", PLAIN_ACTIVATIONS)
    attention: dict[str, Any] = {"qkv_bias": True, "o_bias": True, "attn_drop": reader.probability("attn_pdrop")}
    by_depth = reader.boolean("scale_attn_by_inverse_layer_idx")
    scale = None if reader.boolean("scale_attn_weights") else 1.0
    scales = [_depth_scale(scale, d_model, n_heads, index) if by_depth else scale for index in range(n_layers)]
    layers = [
        (
            f"decoder_{index}" if by_depth and n_layers > 1 else "decoder",
            {
                "mixer": {"type": "attention", "attention": {**attention, "scale": scales[index]}},
                "ffn": {"type": "mlp", "activation": activation, "bias": True},
                "norm": {"type": "layernorm", "position": "pre"},
            },
        )
        for index in range(n_layers)
    ]
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    embedding = {"type": "learned", "positional": "learned"}
    return finish_spec(reader, "gpt2", model, embedding, layers, head, dropout)


def _depth_scale(scale: float | None, d_model: int, n_heads: int, index: int) -> float | None:
    """The factor on scores in layer `index` when they are divided by its depth; None where it is the usual one."""
    if index == 0:
        return scale
    return (scale or (d_model // n_heads) ** -0.5) / float(index + 1)


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the GPT-2 that `ir` describes, if it describes one."""
    first = ir.layers[0]
    scales = [layer.mixer.params.get("scale") for layer in ir.layers]
    return {
        "vocab_size": ir.model["vocab_size"],
        "n_positions": ir.model["max_seq_len"],
        "n_embd": ir.model["d_model"],
        "n_layer": len(ir.layers),
        "n_head": ir.model["n_heads"],
        "n_inner": ir.model["d_ff"],
        "activation_function": "gelu_new"
        if first.ffn.params.get("activation") == "gelu_tanh"
        else hf_activation(first.ffn.params.get("activation", "gelu")),
        "resid_pdrop": ir.training_hints["dropout"],
        "embd_pdrop": ir.training_hints["dropout"],
        "attn_pdrop": first.mixer.params.get("attn_drop", 0.0),
        "layer_norm_epsilon": ir.model["norm_eps"],
        "initializer_range": ir.model["initializer_range"],
        "scale_attn_weights": scales[0] != 1.0,
        "scale_attn_by_inverse_layer_idx": len(set(scales)) > 1,
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "dtype": ir.model["dtype"],
    }


_BLOCK = "transformer.h.{i}"
_LAYER = "model.layers.{i}"
GPT2 = Importer(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    summary="GPT-2 and what shares its class",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        WeightRule("transformer.wte", ("model.embed_tokens",)),
        WeightRule("transformer.wpe", ("model.position",)),
        WeightRule("transformer.ln_f", ("model.norm",)),
        WeightRule("lm_head", ("lm_head",)),
        WeightRule(f"{_BLOCK}.ln_1", (f"{_LAYER}.mixer_norm",)),
        WeightRule(f"{_BLOCK}.ln_2", (f"{_LAYER}.ffn_norm",)),
        WeightRule(
            f"{_BLOCK}.attn.c_attn",
            tuple(f"{_LAYER}.mixer.{name}" for name in ("q_proj", "k_proj", "v_proj")),
            transpose=True,
        ),
        WeightRule(f"{_BLOCK}.attn.c_proj", (f"{_LAYER}.mixer.o_proj",), transpose=True),
        WeightRule(f"{_BLOCK}.mlp.c_fc", (f"{_LAYER}.ffn.up_proj",), transpose=True),
        WeightRule(f"{_BLOCK}.mlp.c_proj", (f"{_LAYER}.ffn.down_proj",), transpose=True),
    ),
    drop=(f"{_BLOCK}.attn.bias", f"{_BLOCK}.attn.masked_bias"),
    prefix="transformer.",
    pad_learns=True,
    canonical=canonical_layer,
)
