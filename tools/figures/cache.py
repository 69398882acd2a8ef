"""Bytes of cache against the context, for one layer of each kind of mixer: what `explain` computes, drawn."""

from __future__ import annotations

from collections.abc import Callable

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from tools.figures.chart import chart

MIXERS = {
    "attention": {"type": "attention", "attention": {}},
    "attention, window 1024": {"type": "attention", "attention": {"window": 1024}},
    "MLA, latent 256": {"type": "attention", "attention": {"latent_dim": 256}},
    "RetNet": {"type": "retnet"},
    "Mamba-2": {"type": "mamba", "mamba": {"variant": "mamba2"}},
}
KOREAN = {
    "attention": "attention",
    "attention, window 1024": "attention, 윈도 1024",
    "MLA, latent 256": "MLA, latent 256",
    "RetNet": "RetNet",
    "Mamba-2": "Mamba-2",
    "tokens of context": "컨텍스트의 토큰 수",
    "Cache of one layer against the context": "컨텍스트에 따른 레이어 하나의 캐시",
}
CONTEXTS = [2**power for power in range(8, 18)]
SIZES = {2.0**17: "128 KiB", 2.0**20: "1 MiB", 2.0**23: "8 MiB", 2.0**26: "64 MiB", 2.0**29: "512 MiB"}


def spec(mixer: dict[str, object]) -> dict[str, object]:
    """One layer of this mixer, 1024 wide."""
    return {
        "schema_version": 1,
        "model": {"name": "one", "d_model": 1024, "vocab_size": 32000, "max_seq_len": 131072, "n_heads": 16},
        "tokenizer_contract": {"type": "hf", "pretrained": "bpe-32k"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {"layer": {"mixer": mixer, "ffn": {"type": "gated_mlp"}}},
        "layer_schedule": [{"template": "layer"}],
        "head": {"type": "causal_lm"},
    }


def svg(say: Callable[[str], str]) -> str:
    """The drawing; `say` gives its words in the reader's language."""
    lines = {}
    for name, mixer in MIXERS.items():
        cost = model_cost(es.normalize_to_ir(spec(mixer)))
        lines[say(name)] = [(context, cost.cache_bytes(context)) for context in CONTEXTS]
    marks = {context: f"{context:,}" for context in CONTEXTS[::3]}
    return chart(say("Cache of one layer against the context"), say("tokens of context"), lines, marks, SIZES)
