"""Stages that apply a layer several times, over mixers of several kinds, beside layers that stand alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tests.model.case import Case
from tests.model.mixers.branched import MAMBA, NEAR, RETNET, spec
from tests.model.specs import tiny_spec

FFN = {"type": "gated_mlp"}
TEMPLATES = {
    "decoder": tiny_spec()["layer_templates"]["decoder"],
    "near": {"mixer": NEAR, "ffn": FFN, "residual": {"type": "parallel"}},
    "linear": {"mixer": RETNET, "ffn": FFN, "norm": {"type": "layernorm", "position": "sandwich"}},
    "ssm": {"mixer": MAMBA, "ffn": {"type": "none"}},
    "both": {"mixer": spec(ssm=MAMBA, near=NEAR)["layer_templates"]["decoder"]["mixer"], "ffn": {"type": "mlp"}},
}


def stage(kind: str, steps: int, body: str = "decoder", **words: Any) -> dict[str, Any]:
    """An entry of the schedule."""
    return {"integrator": {"type": kind, "steps": steps, "body": body, **words}}


def staged(*schedule: dict[str, Any] | str) -> dict[str, Any]:
    """The tiny spec with these stages, or layers of the templates so called."""
    entries = [{"template": entry} if isinstance(entry, str) else entry for entry in schedule]
    names = {entry.get("template") or entry["integrator"]["body"] for entry in entries}
    templates = {name: template for name, template in TEMPLATES.items() if name in names}
    return tiny_spec(layer_schedule=entries, layer_templates=templates)


VARIANTS = {
    "discrete": staged("decoder", stage("discrete", 2)),
    "discrete_hidden": staged(stage("discrete", 2, "near", output="hidden"), "decoder"),
    "ode_euler": staged(stage("ode_euler", 3), "near"),
    "ode_euler_states": staged(stage("ode_euler", 2, "linear"), stage("ode_euler", 2, "ssm", output="hidden")),
    "ode_rk4": staged("decoder", stage("ode_rk4", 1, "near")),
    "ode_rk4_branched": staged("linear", stage("ode_rk4", 1, "both", output="hidden"), "decoder"),
}
WITHOUT_ATTENTION = {"ode_euler_states"}

PLACE = "layer_schedule.0.integrator"
ENTRY = {"layer_schedule": [stage("ode_euler", 2)]}
LINEAR = {"layer_templates.linear": TEMPLATES["linear"]}
CASES: dict[str, Case] = {
    "layer_schedule.integrator.type": Case("function", {f"{PLACE}.type": "ode_rk4"}, ENTRY),
    "layer_schedule.integrator.steps": Case("function", {f"{PLACE}.steps": 3}, ENTRY),
    "layer_schedule.integrator.body": Case("parameters", {f"{PLACE}.body": "linear"}, ENTRY | LINEAR),
    "layer_schedule.integrator.output": Case("parameters", {f"{PLACE}.output": "hidden"}, ENTRY),
}
if find_spec("eulerstack_ode") is not None:
    ADAPTIVE = {"layer_schedule": [stage("ode_adaptive", 9, ode_adaptive={"rtol": 1e-3, "atol": 1e-4})]}
    CASES |= {
        f"integrator.ode_adaptive.{word}": Case(
            "function", {f"{PLACE}.ode_adaptive.{word}": value}, ADAPTIVE, needs="torchdiffeq"
        )
        for word, value in (("method", "adaptive_heun"), ("rtol", 0.5), ("atol", 0.5))
    }
