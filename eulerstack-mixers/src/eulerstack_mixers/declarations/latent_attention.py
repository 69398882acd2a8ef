"""The words of latent attention (MLA) in an attention block, what follows from them, and its price.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  the normalised latent and one rotary key for all heads: latent_dim + rope_head_dim elements a token; under a
        window the last window − 1 tokens
Cost:   for H heads of head_dim + rope_head_dim channels in queries and keys, v_head_dim in values:
        d_model·(latent_dim + rope_head_dim) + latent_dim + latent_dim·H·(head_dim + v_head_dim) + H·v_head_dim·d_model
        parameters, and for the queries d_model·H·(head_dim + rope_head_dim), or with q_latent_dim
        d_model·q_latent_dim + q_latent_dim + q_latent_dim·H·(head_dim + rope_head_dim); FLOPs per token 2 per weight of
        a projection, and per visible token 2·H·(head_dim + rope_head_dim + v_head_dim), while decoding
        2·H·(2·latent_dim + rope_head_dim), because then the latent is attended to as it is
Errors: CompatibilityError when latent_dim is not below d_model, when a word of latent attention stands without
        latent_dim, or beside qk_norm
Source: DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, sections 2.1.2 and 2.1.3; DeepSeek-V3, arXiv:2412.19437
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Cost, Dims, Problem, attention_scale
from eulerstack_mixers.declarations.compressed_attention import shares_keys
from eulerstack_mixers.declarations.rope_scaling import check_rope
from eulerstack_mixers.declarations.words import Schema, integer, number

Params = Mapping[str, Any]
SEE = "reference/errors.md#latent-attention"
MAX_WIDTH = 2**20

LATENT_WORDS: Schema = {
    "latent_dim": integer(
        "Width of the latent that keys and values of all heads are made from, below d_model; it is what the cache "
        "keeps, beside one rotary key. null: keys and values of their own.",
        None,
        nullable=True,
        minimum=1,
        maximum=MAX_WIDTH,
    ),
    "q_latent_dim": integer(
        "Width of the latent that queries are made from; null: queries come from the hidden states. Needs latent_dim, "
        "or compression csa or hca.",
        None,
        nullable=True,
        minimum=1,
        maximum=MAX_WIDTH,
    ),
    "rope_head_dim": integer(
        "Channels that each query has beside its head_dim, and the one key of all heads for them, which carry the "
        "position; null: the even number at or below head_dim / 2. Needs latent_dim.",
        None,
        nullable=True,
        minimum=2,
        maximum=MAX_WIDTH,
    ),
    "v_head_dim": integer(
        "Channels of a head's values; null: head_dim. Needs latent_dim.",
        None,
        nullable=True,
        minimum=1,
        maximum=MAX_WIDTH,
    ),
    "latent_norm_eps": number(
        "Added to the mean square in the RMSNorm of both latents; null: model.norm_eps. Needs latent_dim.",
        None,
        nullable=True,
        exclusiveMinimum=0,
    ),
}


def yarn_temperature(rope: Mapping[str, Any] | bool | None) -> float:
    """The factor that yarn's mscale_all_dim puts on the scores: its square stands in the scale of latent attention."""
    scaling = rope.get("scaling") if isinstance(rope, Mapping) else None
    if not scaling or scaling["type"] != "yarn" or not scaling.get("mscale_all_dim") or scaling["factor"] <= 1:
        return 1.0
    return 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"]) + 1.0


def resolve_latent(params: Params, model: Mapping[str, Any]) -> Params:
    """Fills the widths, the norm's eps and the scale of an attention block; `rope` must be resolved already."""
    if params["latent_dim"] is None:
        return params
    head_dim = model["model"]["head_dim"]
    rope_head_dim = params["rope_head_dim"] or max(2, head_dim // 4 * 2)
    temperature = yarn_temperature(params["rope"])
    scale = attention_scale(head_dim + rope_head_dim, model) * temperature * temperature
    return {
        **params,
        "rope_head_dim": rope_head_dim,
        "v_head_dim": params["v_head_dim"] or head_dim,
        "latent_norm_eps": params["latent_norm_eps"] or model["model"]["norm_eps"],
        "scale": params["scale"] or scale,
    }


def check_latent(dims: Dims, params: Params) -> Iterator[Problem]:
    """Contradictions of the words of latent attention."""
    latent_dim = params["latent_dim"]
    if latent_dim is None:
        for word in LATENT_WORDS:
            # Queries may come from a latent beside shared keys too.
            if params[word] is not None and not (word == "q_latent_dim" and shares_keys(params)):
                yield Problem(
                    word,
                    msg("{word} belongs to latent attention, but there is no latent_dim", word=word),
                    msg("add latent_dim, or delete {word}", word=word),
                    SEE,
                )
        return
    if latent_dim >= dims.d_model:
        yield Problem(
            "latent_dim",
            msg(
                "latent_dim {latent_dim} is not smaller than d_model {d_model}, so it would compress nothing",
                latent_dim=latent_dim,
                d_model=dims.d_model,
            ),
            msg("type a smaller latent_dim, for example {example}", example=max(1, dims.d_model // 2)),
            SEE,
        )
    if params["qk_norm"] != "none":
        yield Problem(
            "qk_norm",
            msg("latent attention normalises its latents, not queries and keys"),
            msg("delete qk_norm, or latent_dim"),
            SEE,
        )
    rope = params["rope"]
    if rope and dims.positional == "rope":
        yield from check_rope(
            params["rope_head_dim"],
            rope.get("theta", 10000.0),
            rope.get("partial_factor", 1.0),
            rope.get("scaling"),
            "rope_head_dim",
            "rope.scaling",
        )


def latent_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer of latent attention; sinks and windows are the caller's."""
    heads, nope = dims.n_heads, dims.head_dim
    latent, rope, value, query = (
        params[word] for word in ("latent_dim", "rope_head_dim", "v_head_dim", "q_latent_dim")
    )
    query_width = heads * (nope + rope)
    weights = dims.d_model * (latent + rope) + latent * heads * (nope + value) + heads * value * dims.d_model
    weights += dims.d_model * query_width if query is None else (dims.d_model + query_width) * query
    norms = latent + (query or 0)
    biases = (latent + rope + (query or 0) if params["qkv_bias"] else 0) + (dims.d_model if params["o_bias"] else 0)
    return Cost(
        params=weights + norms + biases,
        safe_params=norms,
        flops_per_token=2 * weights,
        flops_per_token_per_context=2 * heads * (nope + rope + value),
        decode_flops_per_token_per_context=2 * heads * (2 * latent + rope),
        state_bytes_per_token=(latent + rope) * element_bytes,
    )
