"""Attention beyond the plain kinds of `tests.model.variants`: latent, dilated, with sinks."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

ATTENTION = "layer_templates.decoder.mixer.attention"


def of(**words: Any) -> dict[str, Any]:
    """Changes to the tiny spec's attention block; 3 heads of 12 channels at d_model 36."""
    return {f"{ATTENTION}.{word}": value for word, value in words.items()}


LATENT = {"latent_dim": 16}
# Odd widths, none of which equals another.
FULL_LATENT = {**LATENT, "q_latent_dim": 21, "rope_head_dim": 10, "v_head_dim": 7, "latent_norm_eps": 0.01}
DILATED = {"window_mode": "dilated", "window": 8, "window_dilation": 3}
YARN = {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16, "mscale": 0.7, "mscale_all_dim": 1.3}


def _hybrid() -> dict[str, Any]:
    """Latent, grouped, dilated and windowed layers in one model, with rotary parts of three widths."""
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    kinds: dict[str, dict[str, Any]] = {
        "latent": FULL_LATENT,
        "grouped": {},
        "dilated": DILATED,
        "near": {**LATENT, "window": 4, "rope": {"theta": 77.0}},
    }
    spec["layer_templates"] = {
        name: {"mixer": {"type": "attention", "attention": attention}, "ffn": ffn} for name, attention in kinds.items()
    }
    spec["layer_schedule"] = [{"template": name} for name in ("latent", "dilated", "grouped", "near")]
    return spec


def _variants() -> dict[str, dict[str, Any]]:
    base = tiny_spec()
    changes: dict[str, dict[str, Any]] = {
        "latent": of(**LATENT),
        "latent_full": of(**FULL_LATENT, qkv_bias=True, o_bias=True),
        "latent_one_layer": {**of(latent_dim=35), "layer_schedule.0.repeat": 1},
        "latent_window": of(**LATENT, q_latent_dim=9, window=5),
        "latent_dilated": of(**LATENT, **DILATED),
        "latent_yarn": {**of(**LATENT), "embedding.rope_scaling": YARN, "embedding.rope_interleaved": True},
        "latent_partial": {**of(**LATENT, rope_head_dim=8), "embedding.rope_partial_factor": 0.5},
        "latent_alibi": {**of(**LATENT), "embedding.positional": "alibi"},
        "latent_no_rope": of(**LATENT, rope=False),
        "latent_softcap": of(**LATENT, softcap=2.0, scale=0.4),
        "latent_sinks": of(**FULL_LATENT, attention_sinks={"n_per_head": 2}),
        "dilated": of(**DILATED),
        "dilated_alibi": {**of(**DILATED), "embedding.positional": "alibi"},
        "dilated_wide": of(window_mode="dilated", window=64, window_dilation=5),
        "sinks": of(attention_sinks={}),
        "sinks_fixed": of(attention_sinks={"n_per_head": 3, "learnable": False}, window=5),
    }
    return {name: changed(base, change) for name, change in changes.items()} | {"attention_hybrid": _hybrid()}


VARIANTS = _variants()
EAGER_ONLY = {"latent_softcap", "latent_sinks", "sinks", "sinks_fixed"}


def field(word: str, value: Any, effect: str = "function", **given: Any) -> Case:
    """A case that sets one word of the attention block beside the words that it needs."""
    return Case(effect, of(**{word: value}), of(**given))


CASES = {
    "mixer.attention.window_dilation": field("window_dilation", 2, **DILATED),
    "mixer.attention.latent_dim": field("latent_dim", 8, "parameters"),
    "mixer.attention.q_latent_dim": field("q_latent_dim", 8, "parameters", **LATENT),
    "mixer.attention.rope_head_dim": field("rope_head_dim", 8, "parameters", **LATENT),
    "mixer.attention.v_head_dim": field("v_head_dim", 7, "parameters", **LATENT),
    "mixer.attention.latent_norm_eps": field("latent_norm_eps", 0.3, **LATENT),
    "mixer.attention.attention_sinks": field("attention_sinks", {"learnable": False}),
    "mixer.attention.attention_sinks.n_per_head": field(
        "attention_sinks", {"learnable": False, "n_per_head": 5}, attention_sinks={"learnable": False}
    ),
    "mixer.attention.attention_sinks.learnable": field(
        "attention_sinks", {"learnable": False}, "parameters", attention_sinks={}
    ),
}
