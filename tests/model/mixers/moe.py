"""Mixtures of experts, which are no mixers but stand in the same tables."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.words import changed, tiny_spec

FFN = "layer_templates.decoder.ffn"


def spec(**words: Any) -> dict[str, Any]:
    return changed(tiny_spec(), {FFN: {"type": "moe", "experts": 6, "top_k": 2, **words}})


def _every_other_layer() -> dict[str, Any]:
    one = spec(experts=5, shared_experts=1)
    dense = {"mixer": {"type": "mamba", "mamba": {"variant": "mamba1"}}, "ffn": {"type": "gated_mlp"}}
    return changed(
        one,
        {
            "layer_templates.dense": dense,
            "layer_schedule": [{"template": "dense"}, {"template": "decoder"}, {"template": "dense"}],
        },
    )


GROUPED = {"n_groups": 3, "balance": {"group_limit": 2}}
VARIANTS = {
    "moe": spec(),
    "moe_one_expert": spec(experts=1, top_k=1),
    "moe_all_experts": spec(top_k=6, normalize_top_k=False),
    "moe_sigmoid": spec(router="sigmoid", shared_experts=2, d_expert=13, routed_scale=2.5, **GROUPED),
    "moe_corrected": spec(router="sigmoid", affinity="sqrt_softplus", bias_correction={"enabled": True}),
    "moe_hashed": spec(routing={"type": "hash", "hash_salt": 7}, shared_experts=1),
    "moe_limited": spec(capacity_factor=0.5, capacity_drop_policy="overflow"),
    "moe_shared_gate": spec(shared_experts=1, shared_gate=True, d_shared=9),
    "moe_cut_gates": spec(gate_limit=0.3, shared_experts=1, router="sqrt_softplus"),
    "moe_ungated": spec(gated=False, activation="relu2", shared_experts=1),
    "moe_hybrid": _every_other_layer(),
    "moe_probed": changed(spec(), {"training_hints.differentiation_objectives.usage_probe_coef": 0.1}),
    "moe_parallel": changed(spec(), {"layer_templates.decoder.residual.type": "parallel"}),
}
TRANSFORMED = set(VARIANTS)
CHOOSING = {"usage_probe"}


def _case(effect: str, word: str, value: Any, **given: Any) -> Case:
    return Case(effect, {f"{FFN}.{word}": value}, {FFN: {"type": "moe", "experts": 6, "top_k": 2, **given}})


CORRECTED = {"enabled": True, "update_rate": 0.01}
CASES = {
    "ffn.moe.experts": _case("parameters", "experts", 5),
    "ffn.moe.top_k": _case("function", "top_k", 3),
    "ffn.moe.router": _case("function", "router", "sigmoid"),
    "ffn.moe.affinity": _case("function", "affinity", "sqrt_softplus"),
    "ffn.moe.normalize_top_k": _case("function", "normalize_top_k", False),
    "ffn.moe.routed_scale": _case("function", "routed_scale", 3.0),
    "ffn.moe.d_expert": _case("parameters", "d_expert", 11),
    "ffn.moe.shared_experts": _case("parameters", "shared_experts", 1),
    "ffn.moe.d_shared": _case("parameters", "d_shared", 7, shared_experts=1),
    "ffn.moe.shared_gate": _case("parameters", "shared_gate", True, shared_experts=1),
    "ffn.moe.gate_limit": _case("function", "gate_limit", 0.3, shared_experts=1),
    "ffn.moe.gated": _case("parameters", "gated", False, shared_experts=1),
    "ffn.moe.n_groups": _case("function", "n_groups", 6, **GROUPED),
    "ffn.moe.balance.group_limit": _case("function", "balance.group_limit", 1, n_groups=3, balance={"group_limit": 3}),
    "ffn.moe.balance.sequence_aux_coef": _case("loss", "balance.sequence_aux_coef", 0.3),
    "ffn.moe.balance": _case("loss", "balance", {"sequence_aux_coef": 0.3}),
    "ffn.moe.load_balance_coef": _case("loss", "load_balance_coef", 0.3),
    "ffn.moe.z_loss": _case("loss", "z_loss", 0.3),
    "ffn.moe.bias_correction": _case("corrections", "bias_correction", CORRECTED),
    "ffn.moe.bias_correction.enabled": _case(
        "corrections", "bias_correction.enabled", False, bias_correction=CORRECTED
    ),
    "ffn.moe.bias_correction.update_rate": _case(
        "corrections", "bias_correction.update_rate", 0.1, bias_correction=CORRECTED
    ),
    "ffn.moe.bias_correction.target_imbalance": _case(
        "corrections", "bias_correction.target_imbalance", 100.0, bias_correction=CORRECTED
    ),
    "ffn.moe.routing": _case("function", "routing", {"type": "hash"}),
    "ffn.moe.routing.type": _case("function", "routing.type", "learned", routing={"type": "hash"}),
    "ffn.moe.routing.hash_salt": _case("function", "routing.hash_salt", 3, routing={"type": "hash"}),
    "ffn.moe.capacity_factor": _case("training", "capacity_factor", 0.5),
    "ffn.moe.capacity_drop_policy": _case("training", "capacity_drop_policy", "overflow", capacity_factor=0.5),
    "ffn.moe.router_init_std": _case("initial", "router_init_std", 0.5),
    "ffn.moe.router_jitter": _case("training", "router_jitter", 0.9),
    "ffn.moe.activation": _case("function", "activation", "relu2"),
    "training_hints.router_aux_loss_coef": Case(
        "loss",
        {"training_hints.router_aux_loss_coef": 30.0},
        {FFN: {"type": "moe", "experts": 6, "top_k": 2}},
    ),
}
