"""Test-time training, where eulerstack-ttt is installed: without the package this file gives nothing to test."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
TTT = f"{MIXER}.ttt"
INSTALLED = find_spec("eulerstack_ttt") is not None


def ttt_spec(**words: Any) -> dict[str, Any]:
    """The tiny spec with test-time training in every layer, in mini-batches of 4 tokens where nothing else is said."""
    batched = words.get("inner_optimizer", "sgd") == "sgd" and words.get("inner_steps_per_token", 1) == 1
    block = {"mini_batch": 4 if batched else 1, **words}
    return changed(tiny_spec(), {MIXER: {"type": "ttt_layer", "ttt": block}})


def _hybrid() -> dict[str, Any]:
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {
        "near": {"mixer": {"type": "attention", "attention": {"window": 4}}, "ffn": ffn},
        "linear": {"mixer": {"type": "ttt_layer", "ttt": {"mini_batch": 3}}, "ffn": ffn},
        "mlp": {
            "mixer": {"type": "ttt_layer", "ttt": {"inner_model": {"type": "mlp", "hidden": 7}, "mini_batch": 5}},
            "ffn": {"type": "mlp"},
        },
    }
    spec["layer_schedule"] = [{"template": name} for name in ("linear", "near", "mlp", "linear")]
    return spec


MLP = {"type": "mlp", "hidden": 10}
VARIANTS: dict[str, dict[str, Any]] = {}
CASES: dict[str, Case] = {}
WITHOUT_ATTENTION: set[str] = set()
if INSTALLED:
    VARIANTS = {
        "ttt_linear": ttt_spec(),
        "ttt_mlp": ttt_spec(inner_model=MLP, inner_lr=0.5),
        "ttt_defaults": changed(tiny_spec(), {MIXER: {"type": "ttt_layer"}, "layer_schedule.0.repeat": 1}),
        "ttt_one_layer": changed(ttt_spec(), {"layer_schedule.0.repeat": 1}),
        "ttt_head_dim": changed(ttt_spec(mini_batch=7), {"model.head_dim": 5, "embedding.positional": "none"}),
        "ttt_online": ttt_spec(mini_batch=1),
        "ttt_adamw": ttt_spec(inner_optimizer="adamw"),
        "ttt_mlp_adamw_steps": ttt_spec(inner_model=MLP, inner_optimizer="adamw", inner_steps_per_token=2),
        "ttt_steps": ttt_spec(inner_steps_per_token=3, inner_lr=0.5),
        "ttt_hybrid": _hybrid(),
    }
    WITHOUT_ATTENTION = set(VARIANTS) - {"ttt_hybrid"}

    def _case(effect: str, changes: dict[str, Any], **given: Any) -> Case:
        base = {MIXER: {"type": "ttt_layer", "ttt": {"mini_batch": 4, **given}}}
        return Case(effect, {f"{TTT}.{word}": value for word, value in changes.items()}, base)

    CASES = {
        "mixer.ttt_layer.inner_model": _case("parameters", {"inner_model": {"type": "mlp"}}),
        "mixer.ttt_layer.inner_model.type": _case("parameters", {"inner_model.type": "mlp"}),
        "mixer.ttt_layer.inner_model.hidden": _case("parameters", {"inner_model.hidden": 11}, inner_model=MLP),
        "mixer.ttt_layer.inner_optimizer": _case("function", {"inner_optimizer": "adamw"}, mini_batch=1, inner_lr=0.1),
        "mixer.ttt_layer.inner_lr": _case("function", {"inner_lr": 0.3}),
        "mixer.ttt_layer.inner_steps_per_token": _case("function", {"inner_steps_per_token": 2}, mini_batch=1),
        "mixer.ttt_layer.mini_batch": _case("parameters", {"mini_batch": 5}),
    }
