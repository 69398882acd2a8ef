"""Parallel stages: every merge, streams of different mixers, a stage at either end of the stack, stages in a row."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.mixers.depth_gating import CASES as GATED_CASES
from tests.model.specs import changed, tiny_spec

MERGE = "layer_schedule.0.merge"
CROSS = {"type": "cross_attn", "from": "fast", "to": "slow"}
MAMBA = {"mixer": {"type": "mamba", "mamba": {"d_state": 6, "head_dim": 12}}, "ffn": {"type": "none"}}
NEAR = {"mixer": {"type": "attention", "attention": {"window": 4}}, "ffn": {"type": "mlp"}}
RETNET = {"mixer": {"type": "retnet", "retnet": {"chunk_size": 5}}, "ffn": {"type": "gated_mlp"}}
MOE = {"mixer": {"type": "attention"}, "ffn": {"type": "moe", "experts": 4, "top_k": 2, "d_expert": 12}}


def stream(name: str, *templates: str) -> dict[str, Any]:
    """A stream of one layer a template."""
    return {"stream": name, "body": [{"template": template} for template in templates]}


def parallel(merge: dict[str, Any], *streams: dict[str, Any]) -> dict[str, Any]:
    """A stage; by default a state space beside two layers of attention."""
    return {
        "parallel": list(streams) or [stream("fast", "mamba"), stream("slow", "near", "decoder")],
        "merge": merge,
    }


def spec(*schedule: dict[str, Any], **templates: Any) -> dict[str, Any]:
    """The tiny spec with this schedule and more templates."""
    made = tiny_spec(layer_schedule=list(schedule))
    made["layer_templates"] |= {"mamba": MAMBA, "near": NEAR, "retnet": RETNET, **templates}
    return made


DECODER = {"template": "decoder"}
VARIANTS = {
    "parallel_concat": spec(DECODER, parallel({"type": "concat"}), DECODER),
    "parallel_add": spec(DECODER, parallel({"type": "add"}), DECODER),
    "parallel_gated": spec(parallel({"type": "gated", "projection": True}), DECODER),
    "parallel_cross": spec(DECODER, parallel(CROSS)),
    "parallel_cross_reversed": spec(DECODER, parallel({**CROSS, "from": "slow", "to": "fast", "projection": False})),
    "parallel_three": spec(
        parallel({"type": "gated"}, stream("a", "near"), stream("b", "decoder"), stream("c", "retnet", "mamba")),
        DECODER,
    ),
    "parallel_twice": spec(parallel({"type": "add", "projection": True}), parallel(CROSS), DECODER),
    "parallel_attention": spec(parallel(CROSS, stream("fast", "near"), stream("slow", "decoder")), DECODER),
    "parallel_moe": spec(parallel({"type": "concat"}, stream("a", "moe"), stream("b", "decoder")), moe=MOE),
    "parallel_residual_streams": changed(
        spec(DECODER, parallel(CROSS), DECODER),
        {"layer_templates.decoder.residual": {"type": "hyper_connection", "hyper": {"expand": 2}}},
    ),
    "parallel_alibi": changed(
        spec(parallel(CROSS, stream("fast", "near"), stream("slow", "decoder"))), {"embedding.positional": "alibi"}
    ),
    "parallel_override": spec(
        parallel(
            {"type": "add"},
            {"stream": "a", "body": [{**DECODER, "repeat": 2, "override": {"attention": {"window": 3}}}]},
            stream("b", "decoder"),
        )
    ),
}
# A grouped product's rounding depends on the number of its rows.
TRANSFORMED = {"parallel_moe"}

_RUN = "layer_schedule.0.parallel.0.body.0"
_GIVEN = {
    "layer_schedule": [parallel({"type": "concat"}, stream("fast", "decoder"), stream("slow", "decoder"))],
    "layer_templates.near": NEAR,
}


def _run(effect: str, word: str, value: Any, given: dict[str, Any] | None = None) -> Case:
    return Case(effect, {f"{_RUN}.{word}": value}, {**_GIVEN, **(given or {})})


def _merge(effect: str, value: dict[str, Any], before: dict[str, Any]) -> Case:
    return Case(effect, {MERGE: {**before, **value}}, {**_GIVEN, MERGE: before})


_BODY = "layer_schedule.parallel.body"
CASES: dict[str, Case] = {
    "layer_schedule.merge.type": _merge("parameters", {"type": "gated"}, {"type": "add"}),
    # What a concatenation is without one has no place in a stack.
    "layer_schedule.merge.concat.projection": Case("refused", {f"{MERGE}.projection": False}, _GIVEN),
    "layer_schedule.merge.add.projection": _merge("parameters", {"projection": True}, {"type": "add"}),
    "layer_schedule.merge.gated.projection": _merge("parameters", {"projection": True}, {"type": "gated"}),
    "layer_schedule.merge.cross_attn.projection": _merge("parameters", {"projection": False}, CROSS),
    # A stream that is attended to can't be the one that attends, so the two words change together.
    "layer_schedule.merge.cross_attn.from": _merge("function", {"from": "slow", "to": "fast"}, CROSS),
    "layer_schedule.merge.cross_attn.to": _merge("function", {"from": "slow", "to": "fast"}, CROSS),
    "layer_schedule.parallel.stream": Case(
        "function",
        {"layer_schedule.0.parallel.0.stream": "slow", "layer_schedule.0.parallel.1.stream": "fast"},
        {**_GIVEN, MERGE: CROSS},
    ),
    f"{_BODY}.template": _run("parameters", "template", "near"),
    f"{_BODY}.repeat": _run("parameters", "repeat", 2),
    f"{_BODY}.override.residual.scaling": _run("function", "override", {"residual": {"scaling": 0.25}}),
    f"{_BODY}.override.attention.window": _run("function", "override", {"attention": {"window": 4}}),
    f"{_BODY}.override.attention.attn_drop": _run("training", "override", {"attention": {"attn_drop": 0.4}}),
    f"{_BODY}.override.norm.type": _run(
        "function",
        "override",
        {"norm": {"type": "rmsnorm"}},
        {"layer_templates.decoder.norm": {"type": "layernorm", "bias": False}},
    ),
    f"{_BODY}.override.norm.position": _run("function", "override", {"norm": {"position": "output"}}),
    f"{_BODY}.override.ffn.activation": _run("function", "override", {"ffn": {"activation": "relu"}}),
    **{
        f"{_BODY}.{path.removeprefix('layer_schedule.')}": Case(
            case.effect,
            {word.replace("layer_schedule.0", _RUN): value for word, value in case.changes.items()},
            {**_GIVEN, **{word.replace("layer_schedule.0", _RUN): value for word, value in case.given.items()}},
        )
        for path, case in GATED_CASES.items()
        if path != "layer_schedule.depth_gating"
    },
}
