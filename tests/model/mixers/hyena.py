"""Hyena: alone, at higher orders, without short convolution or decay, shorter than the input, beside attention."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

HYENA = "layer_templates.decoder.mixer.hyena"


def hyena_spec(**words: Any) -> dict[str, Any]:
    spec = tiny_spec()
    spec["layer_templates"]["decoder"]["mixer"] = {"type": "hyena", "hyena": {"filter_hidden": 7, **words}}
    return changed(spec, {"model.max_seq_len": 40, "layer_schedule.0.repeat": 2})


def hybrid() -> dict[str, Any]:
    spec = hyena_spec(filter_emb=5)
    spec["layer_templates"]["global"] = {"mixer": {"type": "attention", "attention": {}}, "ffn": {"type": "mlp"}}
    spec["layer_templates"]["local"] = {
        "mixer": {"type": "attention", "attention": {"window": 5}},
        "ffn": {"type": "mlp"},
    }
    spec["layer_schedule"] = [{"template": name} for name in ("decoder", "local", "decoder", "global")]
    return spec


VARIANTS = {
    "hyena": hyena_spec(),
    "hyena_one_layer": changed(
        hyena_spec(short_conv=5), {"layer_schedule.0.repeat": 1, "model.d_model": 39, "embedding.positional": "none"}
    ),
    "hyena_depth_4": hyena_spec(depth=4, filter_emb=3),
    "hyena_no_short_conv": hyena_spec(short_conv=1, filter_decay=0.0),
    "hyena_fast_decay": hyena_spec(filter_decay=20.0),
    # Filters of eleven taps: a token forgets what lies further back, as under a window.
    "hyena_beyond_its_filters": changed(hyena_spec(), {"model.max_seq_len": 11, "embedding.positional": "none"}),
    "hyena_hybrid": hybrid(),
}
TRANSFORMED = set(VARIANTS)
WITHOUT_ATTENTION = {name for name in VARIANTS if name != "hyena_hybrid"}

BASE = {"layer_templates.decoder.mixer": {"type": "hyena", "hyena": {"filter_hidden": 8}}}


def case(effect: str, word: str, value: Any) -> Case:
    return Case(effect, {f"{HYENA}.{word}": value}, BASE)


CASES = {
    "mixer.hyena.depth": case("parameters", "depth", 3),
    "mixer.hyena.filter_hidden": case("parameters", "filter_hidden", 9),
    "mixer.hyena.filter_decay": case("function", "filter_decay", 5.0),
    "mixer.hyena.short_conv": case("parameters", "short_conv", 4),
    "mixer.hyena.filter_emb": case("parameters", "filter_emb", 5),
}
