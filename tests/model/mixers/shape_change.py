"""Layers of another width than the model's: no mixers, but they stand in the same tables."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.mixers.branched import NEAR
from tests.model.mixers.branched import spec as branched
from tests.model.words import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
ATTENTION = f"{MIXER}.attention"
CHANGE = "layer_templates.decoder.shape_change"
GATING = "layer_schedule.0.depth_gating"


def narrow(changes: dict[str, Any] | None = None, d_out: int = 24, **words: Any) -> dict[str, Any]:
    """The tiny spec with layers of 24 channels: 3 heads of 8, and 33 in the feed-forward blocks."""
    return changed(tiny_spec(), {CHANGE: {"d_out": d_out, **words}, **(changes or {})})


def _hybrid() -> dict[str, Any]:
    """Layers of three widths, some of them gated, the first with a slot of its own for its convolutions."""
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {
        "narrow": {"mixer": NEAR, "ffn": ffn, "shape_change": {"d_out": 18, "projection": "conv1d"}},
        "full": {"mixer": {"type": "retnet"}, "ffn": ffn},
        "wide": {"mixer": {"type": "attention"}, "ffn": ffn, "shape_change": {"d_out": 48, "projection": "mlp"}},
    }
    spec["layer_schedule"] = [
        {"template": "narrow"},
        {"template": "full"},
        {"template": "wide"},
        {"template": "narrow", "depth_gating": {}},
    ]
    return spec


BRANCHES = branched(slow={"type": "retnet"}, near=NEAR)["layer_templates"]["decoder"]["mixer"]
CONV = {"projection": "conv1d"}
VARIANTS = {
    "narrow": narrow(),
    "narrow_mlp": narrow(projection="mlp"),
    "narrow_conv": narrow(projection="conv1d"),
    "wide_conv": narrow({f"{ATTENTION}.window": 5}, d_out=42, **CONV),
    "narrow_head_dim": narrow({"model.head_dim": 10}, d_out=17),
    "narrow_post": narrow({"layer_templates.decoder.norm": {"position": "post"}}),
    "narrow_alibi": narrow({"embedding.positional": "alibi"}),
    "narrow_latent": narrow({f"{ATTENTION}.latent_dim": 16}, **CONV),
    "narrow_mamba": narrow({MIXER: {"type": "mamba", "mamba": {"variant": "mamba1", "d_state": 5}}}, **CONV),
    "narrow_moe": narrow({"layer_templates.decoder.ffn": {"type": "moe", "experts": 4, "top_k": 2}}, **CONV),
    "narrow_branched": narrow({MIXER: BRANCHES}, **CONV),
    "narrow_gated": narrow({MIXER: BRANCHES, GATING: {}}, **CONV),
    "width_hybrid": _hybrid(),
}
WITHOUT_ATTENTION = {"narrow_mamba"}
TRANSFORMED = {"narrow_moe", "narrow_gated", "width_hybrid"}
WITHOUT_STATIC = {"narrow_gated", "width_hybrid"}


def _case(word: str, value: Any) -> Case:
    return Case("parameters", {f"{CHANGE}.{word}": value}, {CHANGE: {"d_out": 24}})


CASES = {
    "layer_templates.shape_change": Case("parameters", {CHANGE: {"d_out": 24}}),
    "layer_templates.shape_change.d_out": _case("d_out", 18),
    "layer_templates.shape_change.projection": _case("projection", "mlp"),
}
