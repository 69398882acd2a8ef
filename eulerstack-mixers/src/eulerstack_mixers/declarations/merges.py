"""What makes one stream of several: concatenation, sum, gates, attention of one stream to another.

Shapes: n streams of (batch, time, d_model) -> (batch, time, d_model)
State:  cross_attn: keys and values, 2·n_kv_heads·head_dim elements a token; the others none
Cost:   concat n·d² parameters; add d² with a projection; gated n·n·d, and d² with a projection; cross_attn
        d·head_dim·(n_heads + 2·n_kv_heads), d·n_heads·head_dim with a projection, and 2·d of norms. FLOPs per token 2
        per matrix element, and for cross_attn 4·n_heads·head_dim per visible token
Errors: CompatibilityError when cross_attn names streams that are not there or not two, and when it has no projection
        though heads and stream differ in width
Source: the field's own; attention of one stream to another: Alayrac et al. 2022 (Flamingo), arXiv:2204.14198
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, Problem
from eulerstack_mixers.declarations.words import Schema, boolean

Params = Mapping[str, Any]
SEE = "reference/errors.md#merge"
MODULE = "eulerstack_mixers.modules.merges"
REFERENCE = "eulerstack_mixers.reference.merges"

PROJECTION = boolean("Whether a matrix of d_model by d_model is applied to what is merged.", False)


def stream_name(description: str, example: str) -> Schema:
    """A word that names a stream."""
    return {"type": "string", "description": description, "examples": [example]}


def _matrix(dims: Dims, inputs: int) -> Cost:
    """A matrix to d_model from `inputs` times that."""
    weights = inputs * dims.d_model**2
    return Cost(params=weights, flops_per_token=2 * weights)


def concat_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The matrix from all streams to one."""
    return _matrix(dims, len(params["streams"]))


def add_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """A sum costs nothing; its projection is a matrix."""
    return _matrix(dims, 1) if params["projection"] else Cost()


def gated_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """One logit a stream from all streams, and a projection."""
    gates = len(params["streams"]) ** 2 * dims.d_model
    projection = add_cost(dims, params, element_bytes)
    return Cost(
        params=gates + projection.params,
        safe_params=gates,
        flops_per_token=2 * gates + projection.flops_per_token,
    )


def cross_attn_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Projections, two norms, scores and values of every visible token."""
    queries, keys = dims.n_heads * dims.head_dim, dims.n_kv_heads * dims.head_dim
    weights = dims.d_model * (queries + 2 * keys + (queries if params["projection"] else 0))
    norms = 2 * dims.d_model
    return Cost(
        params=weights + norms,
        safe_params=norms,
        flops_per_token=2 * weights,
        flops_per_token_per_context=4 * queries,
        state_bytes_per_token=2 * keys * element_bytes,
    )


def check_cross_attn(dims: Dims, params: Params) -> Iterator[Problem]:
    """That it joins two streams of its stage, and that widths fit."""
    names = params["streams"]
    for word in ("from", "to"):
        if params[word] not in names:
            yield Problem(
                word,
                msg("there is no stream {name} in this stage", name=params[word]),
                msg("Type one of: {choices}", choices=", ".join(names)),
                SEE,
            )
    if params["from"] == params["to"]:
        yield Problem(
            "to",
            msg("from and to name the same stream"),
            msg("Type another stream; attention of a stream to itself is a layer"),
            SEE,
        )
    elif len(names) > 2 and {params["from"], params["to"]} <= set(names):
        lost = next(name for name in names if name not in (params["from"], params["to"]))
        yield Problem(
            "type",
            msg("cross_attn joins two streams; what the stream {name} makes would be lost", name=lost),
            msg("Delete this stream, or type another merge"),
            SEE,
        )
    if not params["projection"] and dims.n_heads * dims.head_dim != dims.d_model:
        yield Problem(
            "projection",
            msg("without a projection the heads must be as wide as the stream, but {heads} is not {width}",
                heads=dims.n_heads * dims.head_dim, width=dims.d_model),
            msg("Type projection: true"),
            SEE,
        )  # fmt: skip


MERGES = (
    Primitive(
        name="concat",
        kind="merge",
        summary="the streams side by side, projected to the width of one",
        module=f"{MODULE}:ConcatMerge",
        reference=f"{REFERENCE}:concat",
        inline={
            "projection": {
                **boolean("The matrix from all streams to one; a merge can't do without it.", True),
                "const": True,
            }
        },
        cost=concat_cost,
    ),
    Primitive(
        name="add",
        kind="merge",
        summary="the sum of the streams",
        module=f"{MODULE}:AddMerge",
        reference=f"{REFERENCE}:add",
        inline={"projection": PROJECTION},
        cost=add_cost,
    ),
    Primitive(
        name="gated",
        kind="merge",
        summary="a weighted mean of the streams, whose weights each token computes from all of them",
        module=f"{MODULE}:GatedMerge",
        reference=f"{REFERENCE}:gated",
        inline={"projection": PROJECTION},
        cost=gated_cost,
    ),
    Primitive(
        name="cross_attn",
        kind="merge",
        summary="one stream plus its causal attention to another, without positions of its own",
        paper="arXiv:2204.14198",
        module=f"{MODULE}:CrossAttentionMerge",
        reference=f"{REFERENCE}:cross_attn",
        inline={
            "projection": boolean("Whether a matrix follows the heads, as in attention.", True),
            "from": stream_name("The stream that is attended to.", "slow"),
            "to": stream_name("The stream that attends, and to which the result is added.", "fast"),
        },
        checks=check_cross_attn,
        cost=cross_attn_cost,
        cache=lambda params: CacheLayer("full_attention"),
    ),
)
