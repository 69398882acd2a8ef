"""Memories, which are no mixers but stand in the same tables; without eulerstack-titans there is nothing to test."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from tests.model.case import Case
from tests.model.words import changed, tiny_spec

MEMORY = "layer_templates.decoder.memory"
INSTALLED = find_spec("eulerstack_titans") is not None


def memory_spec(name: str, **words: Any) -> dict[str, Any]:
    """The tiny spec with a memory in every layer."""
    return changed(tiny_spec(), {MEMORY: {"type": name, **words}})


def neural(**words: Any) -> dict[str, Any]:
    """The same with a neural memory that learns fast enough to be seen, in mini-batches of 4 tokens."""
    return memory_spec("neural_memory", **{"inner_lr": 0.05, "mini_batch": 4, "params": {"hidden": 10}, **words})


def _hybrid() -> dict[str, Any]:
    """Memories beside mixers of several kinds, one of which has a state of its own, and a layer without one."""
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {
        "near": {
            "mixer": {"type": "attention", "attention": {"window": 4}},
            "ffn": ffn,
            "memory": {"type": "neural_memory", "inner_lr": 0.05, "depth": 1, "mini_batch": 3},
        },
        "recurrent": {
            "mixer": {"type": "retnet"},
            "ffn": {"type": "none"},
            # All that is stored, because rounding to bfloat16 makes others the nearest.
            "memory": {"type": "retrieval", "params": {"slots": 5, "top_k": 5}},
        },
        "plain": {"mixer": {"type": "attention"}, "ffn": ffn},
        "matrix": {
            "mixer": {"type": "attention"},
            "ffn": ffn,
            "norm": {"type": "rmsnorm", "position": "post"},
            "residual": {"type": "parallel"},
            "memory": {"type": "associative"},
        },
    }
    spec["layer_schedule"] = [{"template": name} for name in ("near", "recurrent", "plain", "matrix", "near")]
    return spec


def _wrapped(**words: Any) -> dict[str, Any]:
    """A memory in layers that most tokens pass by, between layers without."""
    gated = {"template": "decoder", "depth_gating": {"capacity": 0.5, "router": "top_k"}}
    plain = {"mixer": {"type": "attention"}, "ffn": {"type": "gated_mlp"}}
    spec = neural(**words)
    return changed(
        spec,
        {"layer_templates.plain": plain, "layer_schedule": [{"template": "plain"}, gated, {"template": "decoder"}]},
    )


def integrated(kind: str, **words: Any) -> dict[str, Any]:
    """A memory in the body of an integrator, which has a state for every evaluation, behind a layer without."""
    plain = {"mixer": {"type": "retnet"}, "ffn": {"type": "gated_mlp"}}
    stage = {"integrator": {"type": kind, "steps": 2, "body": "decoder"}}
    schedule = [{"template": "plain"}, stage, {"template": "plain"}]
    return changed(neural(**words), {"layer_templates.plain": plain, "layer_schedule": schedule})


VARIANTS: dict[str, dict[str, Any]] = {}
CASES: dict[str, Case] = {"memory.type": Case("refused", {MEMORY: {"type": "other"}})}
TRANSFORMED: set[str] = set()
WITHOUT_STATIC: set[str] = set()
if INSTALLED:
    VARIANTS = {
        "memory_neural": neural(),
        "memory_neural_online": neural(mini_batch=1, params={"hidden": 7}, persistence="per_query"),
        "memory_neural_deep": neural(depth=3, forget=0, mini_batch=5),
        "memory_neural_matrix": memory_spec("neural_memory", depth=1, momentum=0),
        "memory_neural_still": memory_spec("neural_memory", update_at_inference=False),
        "memory_associative": memory_spec("associative", params={"hidden": 24}),
        "memory_associative_kept": memory_spec("associative", forget=0, inner_lr=1.5),
        "memory_retrieval": memory_spec("retrieval", params={"slots": 6, "top_k": 3}),
        "memory_retrieval_all": memory_spec("retrieval", params={"hidden": 6}),
        "memory_hybrid": _hybrid(),
        "memory_gated": _wrapped(),
        "memory_ode": integrated("ode_rk4"),
        "memory_discrete": integrated("discrete", mini_batch=3),
    }
    # What tokens choose decides about shapes, and with them about rounding.
    TRANSFORMED = WITHOUT_STATIC = {"memory_gated"}

    def _neural(effect: str, word: str, value: Any, **given: Any) -> Case:
        return Case(
            effect, {f"{MEMORY}.{word}": value}, {MEMORY: neural(**given)["layer_templates"]["decoder"]["memory"]}
        )

    def _other(name: str, effect: str, word: str, value: Any, **given: Any) -> Case:
        return Case(effect, {f"{MEMORY}.{word}": value}, {MEMORY: {"type": name, **given}})

    CASES = {
        "memory.type": _other("associative", "parameters", "type", "neural_memory"),
        "memory.neural_memory.update_at_inference": _other("neural_memory", "parameters", "update_at_inference", False),
        "memory.neural_memory.persistence": _neural("remembered", "persistence", "persistent"),
        "memory.neural_memory.inner_lr": _neural("function", "inner_lr", 0.2),
        "memory.neural_memory.momentum": _neural("parameters", "momentum", 0),
        "memory.neural_memory.forget": _neural("parameters", "forget", 0),
        "memory.neural_memory.depth": _neural("parameters", "depth", 3),
        "memory.neural_memory.mini_batch": _neural("function", "mini_batch", 8, inner_lr=0.2),
        "memory.neural_memory.hidden": _neural("parameters", "params.hidden", 11),
        "memory.associative.update_at_inference": _other("associative", "refused", "update_at_inference", False),
        "memory.associative.persistence": _other("associative", "remembered", "persistence", "per_query"),
        "memory.associative.inner_lr": _other("associative", "function", "inner_lr", 0.5),
        "memory.associative.forget": _other("associative", "parameters", "forget", 0),
        "memory.associative.hidden": _other("associative", "parameters", "params.hidden", 12, params={}),
        "memory.retrieval.update_at_inference": _other("retrieval", "refused", "update_at_inference", False),
        "memory.retrieval.persistence": _other("retrieval", "remembered", "persistence", "persistent"),
        "memory.retrieval.hidden": _other("retrieval", "parameters", "params.hidden", 12, params={}),
        "memory.retrieval.slots": _other("retrieval", "function", "params.slots", 5, params={"slots": 9, "top_k": 5}),
        "memory.retrieval.top_k": _other("retrieval", "function", "params.top_k", 2, params={"slots": 9, "top_k": 5}),
    }
