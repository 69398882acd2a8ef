"""Selective state spaces: Mamba-1 with a decay of its own for every channel and state, Mamba-2 with one a head.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model); d_inner = expand·d_model
State:  the last d_conv − 1 inputs of the convolution, in the model's dtype, and d_inner·d_state numbers in float32;
        neither grows with time
Cost:   mamba1: parameters d_inner·(3·d_model + d_conv + 2·dt_rank + 3·d_state + 2), plus dt_rank + 2·d_state with
        learned norms; mamba2, for heads = d_inner / head_dim and convolved channels c = d_inner + 2·n_groups·d_state:
        d_model·(2·d_inner + c + heads) + d_conv·c + 3·heads, plus d_inner with norm; biases on top. FLOPs per token 2
        per projection weight, 2·d_conv per convolved channel, and
        6·d_inner·d_state: a state's decay, its input and its reading are one multiply-add each
Errors: CompatibilityError for a word of the other variant, for sizes that don't divide, for dt_min above dt_max, and
        for norm_eps where the mixer holds no norm
Source: Gu & Dao 2023, arXiv:2312.00752; Dao & Gu 2024, arXiv:2405.21060; norms on B, C and Δ: Jamba, arXiv:2403.19887,
        and Falcon Mamba, arXiv:2410.05355
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Kernel, Primitive, Problem
from eulerstack_mixers.declarations.words import block, boolean, choice, integer, number

Params = Mapping[str, Any]
SEE = "reference/errors.md#mamba"

# What null means for a word, by variant; a word that a variant lacks belongs to the other one.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mamba1": {"d_state": 16, "dt_rank": None, "bcdt_norm": "none"},
    "mamba2": {"d_state": 128, "head_dim": 64, "n_groups": 1, "norm": True, "dt_floor": 0.0},
}
STATE_BYTES = 4

SCHEMA = block(
    {
        "variant": choice("Which of the two state spaces.", ("mamba1", "mamba2"), "mamba2"),
        "d_state": integer(
            "States of each channel; null: 16 with mamba1, 128 with mamba2.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**16,
        ),
        "d_conv": integer(
            "Tokens that the short convolution sees, the current one included.", 4, minimum=1, maximum=64
        ),
        "expand": number("Inner width over d_model; the product must be whole.", 2.0, exclusiveMinimum=0, maximum=64),
        "head_dim": integer(
            "mamba2: channels that share one decay; must divide the inner width; null: 64.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**20,
        ),
        "n_groups": integer(
            "mamba2: sets of B and C that heads share; must divide the number of heads; null: 1.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**20,
        ),
        "dt_rank": integer(
            "mamba1: rank of the projection to step sizes; null: d_model / 16, rounded up.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**20,
        ),
        "dt_min": number("Smallest step size before training.", 0.001, exclusiveMinimum=0, maximum=100),
        "dt_max": number("Largest step size before training.", 0.1, exclusiveMinimum=0, maximum=100),
        "dt_floor": number(
            "mamba2: step sizes never get smaller; null: 0.", None, nullable=True, minimum=0, maximum=100
        ),
        "chunk_size": integer(
            "Tokens that are computed at once, for speed and memory alone; null: what suits the device.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**16,
        ),
        "conv_bias": boolean("A bias in the short convolution.", True),
        "proj_bias": boolean("Biases on the input and output projections.", False),
        "norm": {
            "type": ["boolean", "null"],
            "description": "mamba2: a gated RMSNorm over each group before the output projection; null: true.",
            "default": None,
        },
        "bcdt_norm": {
            "type": ["string", "null"],
            "enum": ["none", "weightless", "learned", None],
            "description": (
                "mamba1: RMSNorm of B, C and the low rank of the step sizes, without weights (Falcon Mamba) or with "
                "learned ones (Jamba); null: none."
            ),
            "default": None,
        },
        "norm_eps": number(
            "Added to the mean square in the mixer's own norms; null: model.norm_eps.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
    },
    "Parameters of a selective state space.",
)


def _has_norm(params: Params) -> bool:
    """Whether the mixer holds a norm of its own."""
    return bool(params["norm"]) if params["variant"] == "mamba2" else params["bcdt_norm"] not in (None, "none")


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Gives every null of the chosen variant its meaning; words of the other one stay as they are."""
    filled = dict(params)
    for word, default in DEFAULTS[params["variant"]].items():
        if filled[word] is None:
            filled[word] = default
    if params["variant"] == "mamba1" and filled["dt_rank"] is None:
        filled["dt_rank"] = math.ceil(model["model"]["d_model"] / 16)
    if filled["norm_eps"] is None and _has_norm(filled):
        filled["norm_eps"] = model["model"]["norm_eps"]
    return filled


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Contradictions of one mamba block."""
    variant = params["variant"]
    other = "mamba1" if variant == "mamba2" else "mamba2"
    for word in DEFAULTS[other].keys() - DEFAULTS[variant].keys():
        if params[word] is not None:
            yield Problem(
                word,
                msg("{word} belongs to {other}, but variant is {variant}", word=word, other=other, variant=variant),
                msg("Delete {word}, or type variant: {other}", word=word, other=other),
                SEE,
            )
    if params["norm_eps"] is not None and not _has_norm(params):
        yield Problem(
            "norm_eps",
            msg("norm_eps is given, but this mixer has no norm"),
            msg("Delete norm_eps, or turn a norm on: norm for mamba2, bcdt_norm for mamba1"),
            SEE,
        )
    if params["dt_min"] > params["dt_max"]:
        yield Problem(
            "dt_min",
            msg(
                "dt_min {smallest} is larger than dt_max {largest}", smallest=params["dt_min"], largest=params["dt_max"]
            ),
            msg("Type dt_min: {largest} or less", largest=params["dt_max"]),
            SEE,
        )
    width = params["expand"] * dims.d_model
    if width != int(width) or width < 1:
        yield Problem(
            "expand",
            msg(
                "expand {expand} times d_model {d_model} is no whole number",
                expand=params["expand"],
                d_model=dims.d_model,
            ),
            msg("Choose expand so that the product is whole, for example expand: 2"),
            SEE,
        )
        return
    if variant == "mamba1":
        return
    head_dim, n_groups = params["head_dim"], params["n_groups"]
    if int(width) % head_dim:
        yield Problem(
            "head_dim",
            msg("the inner width {width} can't be divided by head_dim {head_dim}", width=int(width), head_dim=head_dim),
            msg("Choose a head_dim that divides {width}", width=int(width)),
            SEE,
        )
    elif int(width) // head_dim % n_groups:
        n_heads = int(width) // head_dim
        yield Problem(
            "n_groups",
            msg("{n_heads} heads can't be divided into n_groups {n_groups}", n_heads=n_heads, n_groups=n_groups),
            msg("Choose n_groups that divides {n_heads}", n_heads=n_heads),
            SEE,
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer."""
    d_inner, d_state, d_conv = int(params["expand"] * dims.d_model), params["d_state"], params["d_conv"]
    if params["variant"] == "mamba1":
        rank = params["dt_rank"]
        channels, entering = d_inner, 2 * d_inner
        projections = d_inner * (3 * dims.d_model + 2 * rank + 2 * d_state)
        # Δ's bias, A and D
        others = d_inner * (2 + d_state)
        norms = rank + 2 * d_state if params["bcdt_norm"] == "learned" else 0
    else:
        n_heads = d_inner // params["head_dim"]
        channels = d_inner + 2 * params["n_groups"] * d_state
        entering = d_inner + channels + n_heads
        projections = dims.d_model * (entering + d_inner)
        # Δ's bias, A and D
        others = 3 * n_heads
        norms = d_inner if params["norm"] else 0
    biases = (channels if params["conv_bias"] else 0) + (entering + dims.d_model if params["proj_bias"] else 0)
    return Cost(
        params=projections + channels * d_conv + others + norms + biases,
        safe_params=norms,
        flops_per_token=2 * projections + 2 * channels * d_conv + 6 * d_inner * d_state,
        state_bytes_fixed=(d_conv - 1) * channels * element_bytes + d_inner * d_state * STATE_BYTES,
    )


def implementation(params: Params) -> str:
    """The class of the variant."""
    names = {"mamba1": "mamba1:Mamba1", "mamba2": "mamba2:Mamba2"}
    return f"eulerstack_mixers.modules.{names[params['variant']]}"


MAMBA = Primitive(
    name="mamba",
    kind="mixer",
    summary="selective state space: Mamba-1 or Mamba-2",
    paper="arXiv:2405.21060",
    module="eulerstack_mixers.modules.mamba2:Mamba2",
    implementations=implementation,
    reference="eulerstack_mixers.reference.mamba:selective_state_space",
    schema=SCHEMA,
    resolve=resolve,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
    state=("ssm_state",),
    kernels=(
        Kernel("mamba-ssm", ("mamba_ssm",)),
        Kernel("causal-conv1d", ("causal_conv1d",)),
    ),
)
