"""Bytes of cache against the context, for one layer of each kind of mixer: what `explain` computes, drawn."""

from __future__ import annotations

from math import log2

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from tools.figures.drawing import curve, label, picture

MIXERS = {
    "attention": {"type": "attention", "attention": {}},
    "attention, window 1024": {"type": "attention", "attention": {"window": 1024}},
    "MLA, latent 256": {"type": "attention", "attention": {"latent_dim": 256}},
    "RetNet": {"type": "retnet"},
    "Mamba-2": {"type": "mamba", "mamba": {"variant": "mamba2"}},
}
CONTEXTS = [2**power for power in range(8, 18)]
LEFT, TOP, WIDTH, HEIGHT = 84, 24, 420, 220
LOWEST, HIGHEST = 17.0, 29.0


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


def svg() -> str:
    """The drawing; both axes are logarithmic."""
    parts = []
    for power, name in ((17, "128 KiB"), (20, "1 MiB"), (23, "8 MiB"), (26, "64 MiB"), (29, "512 MiB")):
        y = _height(2.0**power)
        parts.append(label(LEFT - 8, y + 4, name, small=True, anchor="end"))
        parts.append(f'<path class="line" stroke-opacity="0.25" d="M{LEFT} {y:.1f} h{WIDTH}"/>')
    for context in CONTEXTS[::3]:
        parts.append(label(_across(context), TOP + HEIGHT + 20, f"{context:,}", small=True, anchor="middle"))
    parts.append(label(LEFT + WIDTH / 2, TOP + HEIGHT + 40, "tokens of context", small=True, anchor="middle"))
    for colour, (name, mixer) in enumerate(MIXERS.items()):
        cost = model_cost(es.normalize_to_ir(spec(mixer)))
        points = [(_across(context), _height(cost.cache_bytes(context))) for context in CONTEXTS]
        parts.append(curve(points, colour))
        parts.append(
            curve([(LEFT + WIDTH + 16, TOP + 10 + 22 * colour), (LEFT + WIDTH + 40, TOP + 10 + 22 * colour)], colour)
        )
        parts.append(label(LEFT + WIDTH + 48, TOP + 14 + 22 * colour, name, small=True))
    return picture(LEFT + WIDTH + 200, TOP + HEIGHT + 56, "Cache of one layer against the context", parts)


def _across(context: int) -> float:
    return LEFT + WIDTH * (log2(context) - 8) / 9


def _height(size: float) -> float:
    return TOP + HEIGHT * (1 - (log2(size) - LOWEST) / (HIGHEST - LOWEST))
