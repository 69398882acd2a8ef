"""Hyper-connections, which are no mixers but stand in the same tables."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.words import changed, tiny_spec

RESIDUAL = "layer_templates.decoder.residual"
HYPER = {RESIDUAL: {"type": "hyper_connection"}}
EVERY_MIXING: dict[str, dict[str, Any]] = {
    "birkhoff": {"expand": 4},
    "unconstrained": {"expand": 3, "mixing": "unconstrained"},
    "learned_lowrank": {"expand": 2, "mixing": "learned_lowrank"},
}


def spec(position: str = "pre", **hyper: Any) -> dict[str, Any]:
    """Three layers with these words of `hyper`."""
    residual = {"type": "hyper_connection", "hyper": hyper}
    return changed(tiny_spec(), {RESIDUAL: residual, "layer_templates.decoder.norm.position": position})


def between() -> dict[str, Any]:
    """Streams that end, begin again in another number, and end before a plain last layer; one layer has no ffn."""
    attention, ffn = {"type": "attention"}, {"type": "gated_mlp"}
    residuals: dict[str, dict[str, Any]] = {
        "four": {"type": "hyper_connection"},
        "free": {"type": "hyper_connection", "hyper": {"expand": 4, "mixing": "unconstrained"}},
        "two": {"type": "hyper_connection", "hyper": {"expand": 2}, "scaling": 0.5},
        "plain": {"type": "parallel"},
        "one": {"type": "hyper_connection", "hyper": {"expand": 1}},
    }
    templates = {name: {"mixer": attention, "ffn": ffn, "residual": each} for name, each in residuals.items()}
    templates["alone"] = {"mixer": {"type": "retnet"}, "ffn": {"type": "none"}, "residual": residuals["two"]}
    schedule = [{"template": name} for name in ("four", "free", "two", "alone", "plain", "four", "one")]
    return tiny_spec(layer_templates=templates, layer_schedule=schedule)


VARIANTS = {f"hyper_{name}": spec(**words) for name, words in EVERY_MIXING.items()} | {
    **{f"hyper_{position}": spec(position, expand=2) for position in ("post", "output", "sandwich")},
    "hyper_one": spec(expand=1),
    "hyper_between": between(),
    "hyper_moe": changed(spec(expand=2), {"layer_templates.decoder.ffn": {"type": "moe", "experts": 5, "top_k": 2}}),
}
TRANSFORMED = {"hyper_moe"}


def _case(effect: str, word: str, value: Any, **hyper: Any) -> Case:
    return Case(effect, {f"{RESIDUAL}.hyper.{word}": value}, {RESIDUAL: {"type": "hyper_connection", "hyper": hyper}})


CASES = {
    "residual.hyper_connection.expand": _case("parameters", "expand", 3),
    "residual.hyper_connection.mixing": _case("function", "mixing", "unconstrained"),
    "residual.hyper_connection.sinkhorn_iters": _case("function", "sinkhorn_iters", 1),
    "residual.hyper_connection.eps": _case("function", "eps", 0.1),
    "residual.hyper_connection.scaling": Case("function", {f"{RESIDUAL}.scaling": 0.5}, HYPER),
}
