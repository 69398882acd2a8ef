"""Branches: of one kind and of several, weighed and chosen, with windows and rotations of their own."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
BRANCHED = f"{MIXER}.branched"
ATTENTION = {"type": "attention"}
NEAR = {"type": "attention", "attention": {"window": 5, "rope": {"theta": 50.0}}}
RETNET = {"type": "retnet", "retnet": {"chunk_size": 5}}
MAMBA = {"type": "mamba", "mamba": {"variant": "mamba2", "d_state": 5, "head_dim": 12, "chunk_size": 4}}
HYENA = {"type": "hyena", "hyena": {"filter_hidden": 8}}
TOP_1 = {"type": "top_k", "top_k": 1}


def spec(selector: dict[str, Any] | None = None, **branches: Any) -> dict[str, Any]:
    """The tiny spec with branches in every layer: retention and attention unless told otherwise."""
    block = {"branches": branches or {"slow": RETNET, "near": NEAR}, "selector": selector or {}}
    return changed(tiny_spec(), {MIXER: {"type": "branched", "branched": block}})


def _hybrid() -> dict[str, Any]:
    hybrid = spec({"type": "top_k", "top_k": 2}, ssm=MAMBA, near=NEAR, far=ATTENTION)
    ffn = {"type": "gated_mlp"}
    hybrid["layer_templates"] |= {
        "plain": {"mixer": {"type": "attention", "attention": {"rope": False}}, "ffn": ffn},
        "linear": {"mixer": RETNET, "ffn": ffn},
    }
    hybrid["layer_schedule"] = [{"template": name} for name in ("linear", "decoder", "plain", "decoder")]
    return hybrid


VARIANTS = {
    "branched": spec(),
    "branched_chosen": spec(TOP_1),
    "branched_attention": spec(TOP_1, near=NEAR, far={"type": "attention", "attention": {"rope": False}}),
    "branched_states": changed(
        spec({"type": "top_k", "top_k": 2}, a=RETNET, b=MAMBA, c=HYENA), {"layer_schedule.0.repeat": 1}
    ),
    "branched_hybrid": _hybrid(),
}
WITHOUT_ATTENTION = {"branched_states"}
TRANSFORMED = {"branched_states"}


def _case(effect: str, changes: dict[str, Any], **selector: Any) -> Case:
    given = {MIXER: spec(selector)["layer_templates"]["decoder"]["mixer"]}
    return Case(effect, {f"{BRANCHED}.{word}": value for word, value in changes.items()}, given)


THREE = {"a": RETNET, "b": NEAR, "c": ATTENTION}
CASES: dict[str, Case] = {
    "mixer.branched.branches": _case("parameters", {"branches": THREE}),
    "mixer.branched.selector.type": _case("function", {"selector.type": "top_k"}),
    "mixer.branched.selector.top_k": _case("function", {"selector.top_k": 2}, **TOP_1),
    "mixer.branched.selector.input": _case("refused", {"selector.input": "embedding"}),
}
