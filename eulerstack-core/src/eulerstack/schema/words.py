"""Which words stand where, and which one a person meant who typed another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eulerstack.dsl.suggest import nearest
from eulerstack.errors import Message, msg
from eulerstack.schema.sections import HELD_NAME

# Words of other tools, and the place and word that say the same here.
FOREIGN_WORDS: dict[str, tuple[str, str]] = {
    "hidden_size": ("model", "d_model"),
    "hidden_dim": ("model", "d_model"),
    "n_embd": ("model", "d_model"),
    "dim": ("model", "d_model"),
    "num_attention_heads": ("model", "n_heads"),
    "num_heads": ("model", "n_heads"),
    "n_head": ("model", "n_heads"),
    "num_key_value_heads": ("model", "n_kv_heads"),
    "num_kv_heads": ("model", "n_kv_heads"),
    "intermediate_size": ("model", "d_ff"),
    "ffn_dim": ("model", "d_ff"),
    "n_inner": ("model", "d_ff"),
    "max_position_embeddings": ("model", "max_seq_len"),
    "context_length": ("model", "max_seq_len"),
    "n_positions": ("model", "max_seq_len"),
    "n_ctx": ("model", "max_seq_len"),
    "rms_norm_eps": ("model", "norm_eps"),
    "layer_norm_eps": ("model", "norm_eps"),
    "layer_norm_epsilon": ("model", "norm_eps"),
    "torch_dtype": ("model", "dtype"),
    "num_hidden_layers": ("layer_schedule[]", "repeat"),
    "num_layers": ("layer_schedule[]", "repeat"),
    "n_layers": ("layer_schedule[]", "repeat"),
    "n_layer": ("layer_schedule[]", "repeat"),
    "count": ("layer_schedule[]", "repeat"),
    "times": ("layer_schedule[]", "repeat"),
    "sliding_window": ("layer_templates.<name>.mixer.attention", "window"),
    "attention_dropout": ("layer_templates.<name>.mixer.attention", "attn_drop"),
    "attn_pdrop": ("layer_templates.<name>.mixer.attention", "attn_drop"),
    "attention_bias": ("layer_templates.<name>.mixer.attention", "qkv_bias"),
    "kv_lora_rank": ("layer_templates.<name>.mixer.attention", "latent_dim"),
    "q_lora_rank": ("layer_templates.<name>.mixer.attention", "q_latent_dim"),
    "qk_rope_head_dim": ("layer_templates.<name>.mixer.attention", "rope_head_dim"),
    "qk_nope_head_dim": ("model", "head_dim"),
    "attn_logit_softcapping": ("layer_templates.<name>.mixer.attention", "softcap"),
    "hidden_act": ("layer_templates.<name>.ffn", "activation"),
    "activation_function": ("layer_templates.<name>.ffn", "activation"),
    "mlp_bias": ("layer_templates.<name>.ffn", "bias"),
    "final_logit_softcapping": ("head", "logit_softcap"),
    "position_embedding_type": ("embedding", "positional"),
    "rope_base": ("embedding", "rope_theta"),
    "tie_embeddings": ("embedding", "tie_word_embeddings"),
    "tokenizer": ("", "tokenizer_contract"),
    "lm_head": ("", "head"),
    "schedule": ("", "layer_schedule"),
    "templates": ("", "layer_templates"),
    "layers": ("", "layer_schedule"),
    "version": ("", "schema_version"),
}

FOREIGN_VALUES: dict[str, str] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "absolute": "learned",
    "rotary": "rope",
    "swish": "silu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "rms_norm": "rmsnorm",
    "layer_norm": "layernorm",
    "ntk": "dynamic",
    "swiglu_mlp": "gated_mlp",
    "ffn": "mlp",
    "self_attention": "attention",
    "mha": "attention",
    "gqa": "attention",
    "mla": "attention",
    "ttt": "ttt_layer",
    "hf": "huggingface",
    "transformers": "huggingface",
}


TOP_LEVEL = msg("the top level")
Places = dict[str, dict[str, list[str]]]
"""For every word the places where it may stand, and for each place the types that have it; none: every type has it."""


def places_of_words(schema: Mapping[str, Any]) -> Places:
    """Where each word of the language may stand, in the order of the schema."""
    found: Places = {}
    _collect(schema, "", found, None)
    return found


def _collect(schema: Any, place: str, found: Places, chosen: str | None) -> None:
    if not isinstance(schema, Mapping):
        return
    for name, below in schema.get("properties", {}).items():
        if below is not True and isinstance(below, Mapping):
            types = found.setdefault(name, {}).setdefault(place, [])
            if chosen is not None and chosen not in types:
                types.append(chosen)
            _collect(below, f"{place}.{name}" if place else name, found, None)
    for part in schema.get("allOf", ()):
        condition = part.get("if", {}).get("properties", {}) if isinstance(part, Mapping) else {}
        types = [condition[word].get("const") for word in ("type", "positional") if word in condition]
        _collect(part.get("then") if isinstance(part, Mapping) else None, place, found, types[0] if types else None)
    # The words of what a primitive holds have their place in a template, too.
    if schema.get("propertyNames") != {"pattern": HELD_NAME}:
        _collect(schema.get("additionalProperties"), f"{place}.<name>", found, None)
    _collect(schema.get("items"), f"{place}[]", found, None)


def meant_value(value: str, choices: Iterable[str]) -> str | None:
    """The choice that `value` was probably meant to be."""
    known = list(choices)
    foreign = FOREIGN_VALUES.get(value.lower())
    return foreign if foreign in known else nearest(value, known)


def one_of(names: Iterable[str]) -> str:
    """Names as a list in a sentence."""
    return ", ".join(names)


def fix_unknown(key: str, here: str, known: Iterable[str], places: Places) -> tuple[Message, str | None]:
    """What to type instead of an unknown key at the place `here`, and the word of this place that was meant, if any."""
    words = list(known)
    word, colon, rest = key.strip('"').partition(":")
    if colon and word in words:
        return msg("Type {example}, with a space after the colon", example=f"{word}: {rest}"), word
    near = nearest(key, words, cutoff=0.82)
    if near is None:
        elsewhere = [place for place in places.get(key, ()) if place != here and "override" not in place]
        if len(elsewhere) == 1:
            return msg("Move {key} to {place}", key=key, place=elsewhere[0] or TOP_LEVEL), None
        place, foreign = FOREIGN_WORDS.get(key.lower(), ("", ""))
        if foreign in words and (place == here or not place):
            near = foreign
        elif foreign:
            return msg("Type {word} under {place}", word=foreign, place=place or TOP_LEVEL), None
    near = near or nearest(key, words)
    if near:
        return msg("Type {word} instead of {key}", word=near, key=key), near
    return msg("Delete {key}; the words here are: {words}", key=key, words=one_of(words)), None
