"""Ways to tell positions apart: rotary, learned, linear biases, none.

Shapes: rope and alibi act inside attention, on queries, keys or scores; learned adds (time, d_model) to the embeddings
State:  none
Cost:   learned holds max_seq_len·d_model parameters; the others hold none; no multiply-adds are counted
Errors: CompatibilityError when the rotated width is odd or smaller than 2, or a scaling contradicts itself
Source: RoPE, Su et al. 2021, arXiv:2104.09864; ALiBi, Press et al. 2021, arXiv:2108.12409
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive, Problem
from eulerstack_mixers.declarations.rope_scaling import check_rope, resolve_scaling, scaling_schema
from eulerstack_mixers.declarations.words import boolean, number

Params = Mapping[str, Any]

ROPE_WORDS = {
    "rope_theta": number("Base of the geometric row of wavelengths.", 10000.0, exclusiveMinimum=0),
    "rope_scaling": {
        **scaling_schema("How frequencies change for longer contexts; null: not at all."),
        "default": None,
    },
    "rope_partial_factor": number(
        "Part of each head's channels that rotates; int(head_dim * factor) must be even.",
        1.0,
        exclusiveMinimum=0,
        maximum=1,
    ),
    "rope_interleaved": boolean(
        "Rotate neighbouring channels (0, 1), (2, 3), … instead of the two halves of the rotated width.", False
    ),
}


def _resolve_rope(params: Params, model: Mapping[str, Any]) -> Params:
    return {**params, "rope_scaling": resolve_scaling(params["rope_scaling"], model["model"]["max_seq_len"])}


def _check_rope(dims: Dims, params: Params) -> Iterable[Problem]:
    return check_rope(
        dims.head_dim,
        params["rope_theta"],
        params["rope_partial_factor"],
        params["rope_scaling"],
        "rope_partial_factor",
        "rope_scaling",
    )


def _config_fields(params: Params, model: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"rope_parameters": rope_parameters(params, model["max_seq_len"])}


def rope_parameters(params: Params, max_seq_len: int) -> dict[str, Any]:
    """The rotary words in transformers' spelling."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": params["rope_theta"]}
    if params["rope_partial_factor"] != 1.0:
        parameters["partial_rotary_factor"] = params["rope_partial_factor"]
    scaling = params["rope_scaling"]
    if scaling is None:
        return parameters
    parameters["rope_type"] = scaling["type"]
    for key, value in scaling.items():
        if key == "original_max_seq_len":
            # transformers' dynamic rule starts from max_position_embeddings and knows no other length.
            if scaling["type"] != "dynamic":
                parameters["original_max_position_embeddings"] = max_seq_len if value is None else value
        elif key != "type" and value is not None:
            parameters[key] = value
    return parameters


def _learned_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    return Cost(params=dims.max_seq_len * dims.d_model)


POSITIONS = (
    Primitive(
        name="rope",
        kind="position",
        summary="rotary positions: queries and keys turn by an angle proportional to their place",
        paper="arXiv:2104.09864",
        module="eulerstack_mixers.modules.positions_rope:RotaryEmbedding",
        reference="eulerstack_mixers.reference.positions:rotate",
        inline=ROPE_WORDS,
        resolve=_resolve_rope,
        checks=_check_rope,
        config_fields=_config_fields,
    ),
    Primitive(
        name="alibi",
        kind="position",
        summary="attention scores fall linearly with distance, at a slope of their own for each head",
        paper="arXiv:2108.12409",
        module="eulerstack_mixers.modules.positions_alibi:AlibiBias",
        place="scores",
        reference="eulerstack_mixers.reference.positions:alibi_slopes",
    ),
    Primitive(
        name="learned",
        kind="position",
        summary="a table of max_seq_len learned vectors, added to the embeddings",
        module="eulerstack_mixers.modules.positions_learned:LearnedPositions",
        place="embeddings",
        reference="eulerstack_mixers.reference.positions:learned_positions",
        cost=_learned_cost,
    ),
    Primitive(
        name="none",
        kind="position",
        summary="no positions: only the causal mask tells places apart",
        paper="arXiv:2203.16634",
    ),
)
