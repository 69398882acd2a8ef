"""Native sparse attention: both of its words, blocks that overlap and that don't, both pools, beside other layers."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.mixers.attention import ATTENTION, of
from tests.model.specs import changed, tiny_spec

# Of 17 tokens some blocks are selected and others not.
SIZES = {"m_block": 2, "stride": 1, "select_block": 3, "top_k_blocks": 3}
NSA = {"window": 4, "compression": {"type": "nsa_learned", **SIZES}}


def with_words(**words: Any) -> dict[str, Any]:
    """The block whose compression says `words` too."""
    return {**NSA, "compression": {**NSA["compression"], **words}}  # type: ignore[dict-item]


def _hybrid() -> dict[str, Any]:
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    kinds: dict[str, dict[str, Any]] = {
        "sparse": with_words(pool="mean"),
        "grouped": {},
        "far": {"window": 5, "compression": {"type": "hca", "m_block": 3}},
    }
    spec["layer_templates"] = {
        name: {"mixer": {"type": "attention", "attention": attention}, "ffn": ffn} for name, attention in kinds.items()
    }
    spec["layer_schedule"] = [{"template": name} for name in ("sparse", "far", "grouped", "sparse")]
    return spec


def _variants() -> dict[str, dict[str, Any]]:
    base = tiny_spec()
    changes: dict[str, dict[str, Any]] = {
        "nsa": of(**NSA, window_mode="nsa"),
        "nsa_mean": {**of(**with_words(pool="mean", stride=2, select_block=2)), "model.n_kv_heads": 3},
        "nsa_shared": of(**with_words(shared_kv=True, m_block=4, stride=2, select_block=2)),
        "nsa_biases": of(**NSA, qkv_bias=True, o_bias=True, softcap=3.0, scale=0.4),
        "nsa_defaults": of(window_mode="nsa"),
        "nsa_one_layer": {**of(**with_words(m_block=1, select_block=2)), "layer_schedule.0.repeat": 1},
        "nsa_turned": {**of(**NSA), "embedding.rope_partial_factor": 0.5, "embedding.rope_interleaved": True},
        "nsa_unplaced": {**of(**with_words(shared_kv=True)), "embedding.positional": "none"},
    }
    return {name: changed(base, change) for name, change in changes.items()} | {"nsa_hybrid": _hybrid()}


VARIANTS = _variants()
WITHOUT_ATTENTION = set(VARIANTS) - {"nsa_hybrid"}


def of_compression(word: str, value: Any, effect: str = "function", **given: Any) -> Case:
    return Case(effect, {f"{ATTENTION}.compression.{word}": value}, of(**with_words(**given)))


CASES = {
    "mixer.attention.compression.stride": of_compression("stride", 2, m_block=2, select_block=4),
    "mixer.attention.compression.select_block": of_compression("select_block", 2),
    "mixer.attention.compression.shared_kv": of_compression("shared_kv", True, "parameters"),
}
