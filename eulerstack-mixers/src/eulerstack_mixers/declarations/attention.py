"""Causal softmax attention with grouped queries, sliding windows, query/key norms and softcapped scores.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys and values, 2·n_kv_heads·head_dim elements a token; under a window the last window − 1 tokens, because the
        current token brings its own
Cost:   parameters d_model·head_dim·(2·n_heads + 2·n_kv_heads), plus n_heads·head_dim + 2·n_kv_heads·head_dim with
        qkv_bias, d_model with o_bias, 2·head_dim with qk_norm `head`, (n_heads + n_kv_heads)·head_dim with `full`;
        FLOPs per token 2 per projection weight, and 4·n_heads·head_dim per visible token for scores and values
Errors: CompatibilityError when window_mode is sliding and no window is given, when rotary words stand beside another
        positional, or when they contradict each other
Source: Vaswani et al. 2017, arXiv:1706.03762; grouped queries, Ainslie et al. 2023, arXiv:2305.13245; windows, Beltagy
        et al. 2020, arXiv:2004.05150; softcap, Gemma team 2024, arXiv:2408.00118
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, Problem
from eulerstack_mixers.declarations.rope_scaling import SEE as SEE_ROPE
from eulerstack_mixers.declarations.rope_scaling import check_rope, resolve_scaling, scaling_schema
from eulerstack_mixers.declarations.words import Schema, block, boolean, choice, integer, number

Params = Mapping[str, Any]

ROPE_OVERRIDE: Schema = {
    "type": ["object", "boolean", "null"],
    "description": (
        "Rotary positions of this template: null takes the embedding's, false turns them off, a mapping replaces "
        "the words that it gives."
    ),
    "default": None,
    "if": {"type": "boolean"},
    "then": {"const": False},
    "properties": {
        "theta": {**number("Base of the geometric row of wavelengths."), "exclusiveMinimum": 0},
        "partial_factor": number(
            "Part of each head's channels that rotates; int(head_dim * factor) must be even.",
            exclusiveMinimum=0,
            maximum=1,
        ),
        "interleaved": {
            "type": "boolean",
            "description": "Rotate neighbouring channels instead of the two halves of the rotated width.",
        },
        "scaling": scaling_schema("How frequencies change for longer contexts; null: not at all."),
    },
    "additionalProperties": False,
}

SCHEMA = block(
    {
        "qkv_bias": boolean("Biases on the query, key and value projections.", False),
        "o_bias": boolean("A bias on the output projection.", False),
        "attn_drop": number(
            "Probability of dropping an attention weight while training.", 0.0, minimum=0, exclusiveMaximum=1
        ),
        "window": integer(
            "Visible tokens, the current one included, so at least 2; null: every earlier token.",
            None,
            nullable=True,
            minimum=2,
            maximum=2**30,
        ),
        "window_mode": choice(
            "How the window lies: standard lets a window, where one is given, slide; sliding requires one.",
            ("standard", "sliding"),
            "standard",
        ),
        "qk_norm": choice(
            "RMSNorm of queries and keys before positions: none, head (over each head), full (over the full width).",
            ("none", "head", "full"),
            "none",
        ),
        "softcap": number(
            "Scores s become softcap · tanh(s / softcap) before the mask; null: left as they are.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "scale": number(
            "Factor on the dot product of query and key; null: head_dim ** -0.5.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "rope": ROPE_OVERRIDE,
    },
    "Parameters of causal softmax attention.",
)


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Makes `rope` false or complete: theta, partial_factor, interleaved and scaling."""
    embedding, rope = model["embedding"], params["rope"]
    if rope is False or (rope is None and embedding["positional"] != "rope"):
        return {**params, "rope": False}
    given = rope or {}
    inherited = {
        word: embedding[f"rope_{word}"]
        for word in ("theta", "partial_factor", "interleaved", "scaling")
        if f"rope_{word}" in embedding
    }
    complete = {**inherited, **given}
    if "scaling" in complete:
        complete["scaling"] = resolve_scaling(complete["scaling"], model["model"]["max_seq_len"])
    return {**params, "rope": complete}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Contradictions of one attention block."""
    if params["window_mode"] == "sliding" and params["window"] is None:
        yield Problem(
            "window_mode",
            msg("window_mode is sliding, but there is no window"),
            msg("add window with a number of tokens, for example window: 4096, or remove window_mode"),
            "reference/errors.md#attention-window",
        )
    rope = params["rope"]
    if not rope:
        return
    if dims.positional != "rope":
        yield Problem(
            "rope",
            msg("rotary words are given, but embedding.positional is {positional}", positional=dims.positional),
            msg("set embedding.positional: rope, or remove rope here"),
            SEE_ROPE,
        )
        return
    yield from check_rope(
        dims.head_dim,
        rope.get("theta", 10000.0),
        rope.get("partial_factor", 1.0),
        rope.get("scaling"),
        "rope.partial_factor",
        "rope.scaling",
    )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one attention layer."""
    queries, keys = dims.n_heads * dims.head_dim, dims.n_kv_heads * dims.head_dim
    weights = dims.d_model * (2 * queries + 2 * keys)
    biases = (queries + 2 * keys if params["qkv_bias"] else 0) + (dims.d_model if params["o_bias"] else 0)
    norms = {"none": 0, "head": 2 * dims.head_dim, "full": queries + keys}[params["qk_norm"]]
    window = params["window"]
    return Cost(
        params=weights + biases + norms,
        flops_per_token=2 * weights,
        flops_per_token_per_context=4 * queries,
        state_bytes_per_token=2 * keys * element_bytes,
        state_window=None if window is None else window - 1,
    )


def cache(params: Params) -> CacheLayer:
    """The cache slot: everything, or what a window still needs."""
    if params["window"] is None:
        return CacheLayer("full_attention")
    return CacheLayer("sliding_attention", params["window"])


def tensor_parallel(params: Params) -> Mapping[str, str]:
    """Projections split by heads. A norm over the full width needs all heads at once, so then they stay whole."""
    if params["qk_norm"] == "full":
        return {}
    return {"q_proj": "colwise", "k_proj": "colwise", "v_proj": "colwise", "o_proj": "rowwise"}


ATTENTION = Primitive(
    name="attention",
    kind="mixer",
    summary="causal softmax attention: multi-head, grouped or multi-query, global or windowed",
    paper="arXiv:1706.03762",
    module="eulerstack_mixers.modules.attention:Attention",
    reference="eulerstack_mixers.reference.attention:attention",
    schema=SCHEMA,
    resolve=resolve,
    checks=checks,
    cost=cost,
    cache=cache,
    state=("kv_cache",),
    tensor_parallel=tensor_parallel,
)
