"""Attention to compressed blocks: both of DeepSeek-V4's kinds, alone and beside other layers, with all their words."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.mixers.attention import ATTENTION, of
from tests.model.specs import changed, tiny_spec

# Sixteen heads: with few, a ReLU leaves many scores of exactly 0.
INDEXER = {"n_heads": 16, "d_per_head": 14}
HCA = {"window": 5, "compression": {"type": "hca", "m_block": 3}}
CSA = {"window": 4, "compression": {"type": "csa", "m_block": 2, "top_k_blocks": 3, "indexer": INDEXER}}
OUTPUT = {"q_latent_dim": 21, "o_latent_dim": 7, "o_groups": 3}


def with_words(block: dict[str, Any], **words: Any) -> dict[str, Any]:
    """A block whose compression says `words` too."""
    return {**block, "compression": {**block["compression"], **words}}


def _hybrid() -> dict[str, Any]:
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    kinds: dict[str, dict[str, Any]] = {
        "far": {**HCA, **OUTPUT},
        "grouped": {},
        "chosen": CSA,
        "near": {"window": 4, "rope": {"theta": 77.0}},
    }
    spec["layer_templates"] = {
        name: {"mixer": {"type": "attention", "attention": attention}, "ffn": ffn} for name, attention in kinds.items()
    }
    spec["layer_schedule"] = [{"template": name} for name in ("far", "grouped", "chosen", "near")]
    return spec


def _variants() -> dict[str, dict[str, Any]]:
    base = tiny_spec()
    partial = {"embedding.rope_partial_factor": 0.5, "embedding.rope_interleaved": True}
    yarn = {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16}
    changes: dict[str, dict[str, Any]] = {
        "hca": of(**HCA),
        "hca_full": {**of(**HCA, **OUTPUT, qkv_bias=True, o_bias=True, scale=0.4), **partial},
        "hca_mean": of(**with_words(HCA, pool="mean")),
        "hca_wide": of(window=64, compression={"type": "hca", "m_block": 16}),
        "hca_sinks": of(**HCA, attention_sinks={"n_per_head": 2}, softcap=3.0),
        "csa": of(**CSA),
        "csa_full": {**of(**CSA, **OUTPUT), **partial, "embedding.rope_scaling": yarn},
        "csa_mean": of(**with_words(CSA, pool="mean", m_block=3)),
        "csa_one_layer": {**of(**with_words(CSA, m_block=1)), "layer_schedule.0.repeat": 1},
        "csa_sinks": of(**CSA, **OUTPUT, attention_sinks={}),
        "csa_all": {**of(**with_words(CSA, top_k_blocks=64), rope=False), "model.head_dim": 10},
        "shared_window": of(window=4, compression={"type": "shared"}, **OUTPUT),
        "csa_unplaced": {**of(**CSA), "embedding.positional": "learned"},
    }
    return {name: changed(base, change) for name, change in changes.items()} | {"compressed_hybrid": _hybrid()}


VARIANTS = _variants()
EAGER_ONLY = {"hca_sinks", "csa_sinks"}
# What only chooses blocks has no part in the gradient of a loss.
CHOOSING = {"indexer"}


def field(word: str, value: Any, effect: str = "function", **given: Any) -> Case:
    """A case that sets one word of the attention block beside the words that it needs."""
    return Case(effect, of(**{word: value}), of(**given))


def of_compression(word: str, value: Any, effect: str, given: dict[str, Any]) -> Case:
    return Case(effect, {f"{ATTENTION}.compression.{word}": value}, of(**given))


CASES = {
    "mixer.attention.compression": field("compression", HCA["compression"], "parameters"),
    "mixer.attention.compression.type": field("compression", {"type": "hca", "m_block": 2}, "parameters", **CSA),
    "mixer.attention.compression.m_block": of_compression("m_block", 5, "function", with_words(HCA, pool="mean")),
    "mixer.attention.compression.pool": of_compression("pool", "mean", "parameters", HCA),
    "mixer.attention.compression.top_k_blocks": of_compression("top_k_blocks", 1, "function", CSA),
    "mixer.attention.compression.indexer": of_compression("indexer", {"d_per_head": 13}, "parameters", CSA),
    "mixer.attention.compression.indexer.arch": of_compression("indexer.arch", "other", "refused", CSA),
    "mixer.attention.compression.indexer.n_heads": of_compression("indexer.n_heads", 17, "parameters", CSA),
    "mixer.attention.compression.indexer.d_per_head": of_compression("indexer.d_per_head", 15, "parameters", CSA),
    "mixer.attention.compression.indexer.dtype": of_compression("indexer.dtype", "bfloat16", "cache_bytes", CSA),
    "mixer.attention.compression.indexer.kl_coef": of_compression("indexer.kl_coef", 0.0, "loss", CSA),
    "mixer.attention.o_latent_dim": field("o_latent_dim", 9, "parameters", **HCA),
    "mixer.attention.o_groups": field("o_groups", 3, "parameters", **HCA, o_latent_dim=9),
}
