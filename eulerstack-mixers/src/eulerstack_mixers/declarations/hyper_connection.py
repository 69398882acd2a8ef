"""Hyper-connections: n residual streams, which every branch reads, writes to and mixes by weights of its own.

Shapes: (batch, time, n, d_model) -> (batch, time, n, d_model), for n = expand; with n = 1 (batch, time, d_model)
Cost:   for a branch n·d_model·r + r + 3 parameters, r = n² + 2n weights a token (4n for learned_lowrank); where streams
        end n²·d_model + n + 1. FLOPs per token and branch 2·r·n·d_model for the weights, 4·n·d_model to read and write
        the streams, 2·n²·d_model to mix them (4·n·d_model for learned_lowrank); at the end 2·n²·d_model + 2·n·d_model.
        With n = 1 none of these
Errors: CompatibilityError for sinkhorn_iters beside a mixing other than birkhoff
Source: Zhu et al. 2024, arXiv:2409.19606; birkhoff: Xie et al. 2025, mHC, arXiv:2512.24880, and DeepSeek-V4
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from eulerstack.errors import Finding, msg
from eulerstack.plugins import Cost, Dims, Primitive, Problem, Rule
from eulerstack_mixers.declarations.residuals import SCALING, norm_slots
from eulerstack_mixers.declarations.words import block, choice, integer, number

Params = Mapping[str, Any]
SINKHORN_ITERS = 20
USUAL_STREAMS = 8

SCHEMA = block(
    {
        "expand": integer(
            "Residual streams, each as wide as the model; 1: the plain residual.", 4, minimum=1, maximum=1024
        ),
        "mixing": choice(
            "How a branch mixes the streams. birkhoff: by a doubly stochastic matrix; unconstrained: by any matrix; "
            "learned_lowrank: by the identity plus a matrix of rank 1.",
            ("birkhoff", "unconstrained", "learned_lowrank"),
            "birkhoff",
        ),
        "sinkhorn_iters": integer(
            "Passes over columns that make the matrix of birkhoff doubly stochastic, with one over rows before each "
            "but the first. null: 20.",
            None,
            nullable=True,
            minimum=1,
            maximum=1000,
        ),
        "eps": number(
            "Added to the weights by which streams are read, and to each sum and entry of the matrix of birkhoff.",
            1e-6,
            minimum=0,
        ),
    },
    "The streams of a hyper-connection.",
)


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """The number of passes that null stands for."""
    if params["mixing"] != "birkhoff" or params["sinkhorn_iters"] is not None:
        return params
    return {**params, "sinkhorn_iters": SINKHORN_ITERS}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Passes that nothing makes."""
    if params["mixing"] != "birkhoff" and params["sinkhorn_iters"] is not None:
        yield Problem(
            "sinkhorn_iters",
            msg("only the mixing birkhoff makes passes of Sinkhorn, and this one is {mixing}", mixing=params["mixing"]),
            msg("Delete sinkhorn_iters, or type mixing: birkhoff"),
            "reference/errors.md#hyper-connection",
        )


def streams(params: Params) -> int:
    """The streams of a layer."""
    return int(params["expand"])


def weights_per_token(params: Params) -> int:
    """Numbers that a branch computes from the streams of a token: to read them, to write to them, to mix them."""
    n = params["expand"]
    return 4 * n if params["mixing"] == "learned_lowrank" else n * (n + 2)


def branch_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The price of one branch."""
    n = params["expand"]
    if n == 1:
        return Cost()
    weights, width = weights_per_token(params), n * dims.d_model
    mixing = 4 * width if params["mixing"] == "learned_lowrank" else 2 * n * width
    count = weights * width + weights + 3
    return Cost(params=count, safe_params=count, flops_per_token=2 * weights * width + 4 * width + mixing)


def ends_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The price of joining the streams into one, where a run of layers ends."""
    n = params["expand"]
    if n == 1:
        return Cost()
    count = n * n * dims.d_model + n + 1
    return Cost(params=count, safe_params=count, flops_per_token=2 * n * n * dims.d_model + 2 * n * dims.d_model)


HYPER_CONNECTION = Primitive(
    name="hyper_connection",
    kind="residual",
    summary="several residual streams, read, written and mixed by learned weights of each token",
    paper="arXiv:2409.19606",
    module="eulerstack_mixers.modules.hyper_connection:HyperConnectionResidual",
    reference="eulerstack_mixers.reference.hyper_connection:hyper_connection",
    schema=SCHEMA,
    block="hyper",
    inline={"scaling": SCALING},
    resolve=resolve,
    checks=checks,
    cost=branch_cost,
    per_branch=True,
    streams=streams,
    stream_ends_cost=ends_cost,
    norm_slots=partial(norm_slots, "sequential"),
)


def _streams_rule(ir: Any) -> Iterator[Finding]:
    seen = set()
    for layer in ir.layers:
        if layer.residual.type != "hyper_connection" or layer.template in seen:
            continue
        seen.add(layer.template)
        count = layer.residual.params["expand"]
        path = f"layer_templates.{layer.template}.residual.hyper.expand"
        if count == 1:
            what = msg("with one stream hyper_connection is the plain residual, and its other words change nothing")
            yield Finding("hyper_connection", what, path, layer.residual.location)
        elif count > USUAL_STREAMS:
            what = msg("{count} residual streams are more than published models have; 4 is usual", count=count)
            yield Finding("hyper_connection", what, path, layer.residual.location)


HYPER_CONNECTION_RULES = (Rule("hyper_connection", "the number of residual streams is a usual one", _streams_rule),)
