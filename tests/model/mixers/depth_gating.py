"""Mixture-of-Depths around every mixer: no mixer itself, but it stands in the same tables."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.mixers.branched import NEAR
from tests.model.mixers.branched import spec as branched
from tests.model.mixers.compressed_attention import CSA
from tests.model.mixers.native_sparse_attention import NSA
from tests.model.mixers.ttt import INSTALLED as TTT_INSTALLED
from tests.model.words import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
ATTENTION = f"{MIXER}.attention"
GATING = "layer_schedule.0.depth_gating"


def gated(changes: dict[str, Any] | None = None, **words: Any) -> dict[str, Any]:
    """The tiny spec with a gate around its three layers."""
    return changed(tiny_spec(), {**(changes or {}), GATING: words})


def _hybrid() -> dict[str, Any]:
    """Gated and plain layers of several mixers in turn, the first with a state."""
    spec = tiny_spec()
    mixers: dict[str, dict[str, Any]] = {
        "mamba": {"type": "mamba", "mamba": {"d_state": 6, "head_dim": 12}},
        "near": {"type": "attention", "attention": {"window": 4}},
        "latent": {"type": "attention", "attention": {"latent_dim": 16}},
        "retnet": {"type": "retnet"},
    }
    spec["layer_templates"] = {name: {"mixer": mixer, "ffn": {"type": "gated_mlp"}} for name, mixer in mixers.items()}
    gate, soft = {"capacity": 0.5}, {"capacity": 0.7, "router": "learned_gate"}
    spec["layer_schedule"] = [
        {"template": "mamba", "depth_gating": gate},
        {"template": "latent"},
        {"template": "near", "depth_gating": soft},
        {"template": "retnet", "depth_gating": gate},
    ]
    return spec


BRANCHES = branched(slow={"type": "retnet"}, near=NEAR)["layer_templates"]["decoder"]["mixer"]
MOE = {"type": "moe", "experts": 4, "top_k": 2}
VARIANTS = {
    "gated": gated(),
    "gated_soft": gated(router="learned_gate"),
    "gated_window": gated({f"{ATTENTION}.window": 5}),
    "gated_dilated": gated(
        {f"{ATTENTION}.window": 8, f"{ATTENTION}.window_mode": "dilated", f"{ATTENTION}.window_dilation": 3}
    ),
    "gated_alibi": gated({"embedding.positional": "alibi", f"{ATTENTION}.window": 6}),
    "gated_latent": gated({f"{ATTENTION}.latent_dim": 16}),
    "gated_mamba1": gated({MIXER: {"type": "mamba", "mamba": {"variant": "mamba1", "d_state": 5}}}),
    "gated_mamba2": gated({MIXER: {"type": "mamba", "mamba": {"d_state": 6, "head_dim": 12}}}),
    "gated_retnet": gated({MIXER: {"type": "retnet"}}, router="learned_gate"),
    "gated_hyena": gated({MIXER: {"type": "hyena"}}),
    "gated_moe": gated({"layer_templates.decoder.ffn": MOE}),
    "gated_post": gated({"layer_templates.decoder.norm": {"position": "post"}}),
    "gated_compressed": gated({ATTENTION: CSA}),
    "gated_nsa": gated({ATTENTION: {**NSA, "window_mode": "nsa"}}),
    "gated_streams": gated({"layer_templates.decoder.residual": {"type": "hyper_connection", "hyper": {"expand": 3}}}),
    "gated_branched": gated({MIXER: BRANCHES}),
    "gated_hybrid": _hybrid(),
}
if TTT_INSTALLED:
    VARIANTS["gated_ttt"] = gated({MIXER: {"type": "ttt_layer", "ttt": {"mini_batch": 4}}})
WITHOUT_ATTENTION = {"gated_mamba1", "gated_mamba2", "gated_retnet", "gated_hyena", "gated_ttt"}
EAGER_ONLY = {"gated_nsa"}
# Shapes follow from what tokens choose, and with them the rounding.
TRANSFORMED = set(VARIANTS)
WITHOUT_STATIC = set(VARIANTS)


def _case(effect: str, word: str, value: Any, **given: Any) -> Case:
    return Case(effect, {f"{GATING}.{word}": value}, {GATING: given})


CASES = {
    "layer_schedule.depth_gating": Case("parameters", {GATING: {}}),
    "layer_schedule.depth_gating.enabled": _case("parameters", "enabled", False),
    "layer_schedule.depth_gating.capacity": _case("training", "capacity", 0.3),
    "layer_schedule.depth_gating.router": _case("function", "router", "learned_gate"),
}
