"""Mamba-1 and Mamba-2: specs that every test of the model runs on, and what each field does."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
FFN = "layer_templates.decoder.ffn"


def mamba(**words: Any) -> dict[str, Any]:
    """A mixer; small states unless `words` say otherwise."""
    small = {"d_state": 5} if words.get("variant") == "mamba1" else {"d_state": 6, "head_dim": 12}
    return {"type": "mamba", "mamba": {**small, **words}}


def _only(**words: Any) -> dict[str, Any]:
    """Three layers of it, without feed-forward blocks."""
    return changed(tiny_spec(), {MIXER: mamba(**words), FFN: {"type": "none"}})


def _hybrid(window: int | None, *mixers: dict[str, Any]) -> dict[str, Any]:
    """Mamba and attention in turn, each with a feed-forward block."""
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {f"mamba{index}": {"mixer": mixer, "ffn": ffn} for index, mixer in enumerate(mixers)}
    spec["layer_templates"]["attention"] = {
        "mixer": {"type": "attention", "attention": {"window": window}},
        "ffn": ffn,
    }
    spec["layer_schedule"] = [{"template": name} for name in spec["layer_templates"]]
    return spec


def _placed(residual: str, position: str) -> dict[str, Any]:
    return changed(
        _only(),
        {"layer_templates.decoder.norm": {"position": position}, "layer_templates.decoder.residual.type": residual},
    )


VARIANTS = {
    "mamba1": _only(variant="mamba1"),
    "mamba1_one_layer": changed(_only(variant="mamba1"), {"layer_schedule.0.repeat": 1}),
    "mamba1_odd": _only(
        variant="mamba1", expand=1.25, d_conv=3, dt_rank=4, conv_bias=False, proj_bias=True, chunk_size=4
    ),
    "mamba1_weightless": _only(variant="mamba1", bcdt_norm="weightless", norm_eps=1e-3),
    "mamba1_learned": _only(variant="mamba1", bcdt_norm="learned", d_conv=1),
    "mamba2": _only(),
    "mamba2_one_layer": changed(_only(), {"layer_schedule.0.repeat": 1}),
    "mamba2_odd": _only(
        expand=1.5, head_dim=9, n_groups=2, d_conv=3, conv_bias=False, proj_bias=True, norm=False, chunk_size=5
    ),
    "mamba2_groups": _only(n_groups=3, chunk_size=8, norm_eps=1e-3),
    "mamba2_floor": _only(dt_floor=0.8, proj_bias=True),
    "mamba_and_attention": _hybrid(None, mamba(variant="mamba1", bcdt_norm="learned"), mamba()),
    "mamba_and_window": _hybrid(5, mamba()),
    "mamba_parallel_sandwich": _placed("parallel", "sandwich"),
    "mamba_post": _placed("sequential", "post"),
    "mamba_output": _placed("sequential", "output"),
}
WITHOUT_ATTENTION = {name for name in VARIANTS if "_and_" not in name}

GIVEN = {MIXER: mamba(), FFN: {"type": "none"}}
GIVEN1 = {MIXER: mamba(variant="mamba1"), FFN: {"type": "none"}}


def _case(effect: str, given: dict[str, Any] = GIVEN, **words: Any) -> Case:
    return Case(effect, {f"{MIXER}.mamba.{word}": value for word, value in words.items()}, given)


CASES = {
    "mixer.mamba.variant": Case("parameters", {MIXER: mamba(variant="mamba1")}, GIVEN),
    "mixer.mamba.d_state": _case("parameters", d_state=7),
    "mixer.mamba.d_conv": _case("parameters", d_conv=3),
    "mixer.mamba.expand": _case("parameters", expand=1),
    "mixer.mamba.head_dim": _case("parameters", head_dim=6),
    "mixer.mamba.n_groups": _case("parameters", n_groups=2),
    "mixer.mamba.dt_rank": _case("parameters", GIVEN1, dt_rank=5),
    "mixer.mamba.dt_min": _case("initial", dt_min=0.05),
    "mixer.mamba.dt_max": _case("initial", GIVEN1, dt_max=0.5),
    "mixer.mamba.dt_floor": _case("function", dt_floor=0.9),
    # Chunks change the order of sums, never the function; `test_chunks_of_any_size_give_one_function` holds that.
    "mixer.mamba.chunk_size": _case("operations", chunk_size=7),
    "mixer.mamba.conv_bias": _case("parameters", conv_bias=False),
    "mixer.mamba.proj_bias": _case("parameters", proj_bias=True),
    "mixer.mamba.norm": _case("parameters", norm=False),
    "mixer.mamba.bcdt_norm": _case("function", GIVEN1, bcdt_norm="weightless"),
    "mixer.mamba.norm_eps": _case("function", norm_eps=0.5),
}
