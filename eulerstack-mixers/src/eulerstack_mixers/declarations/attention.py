"""Causal softmax attention: grouped queries, a latent, compressed blocks, windows, query/key norms, softcaps, sinks.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  keys and values, 2·n_kv_heads·head_dim elements a token; under a window the last window − 1 tokens, because the
        current token brings its own. With latent_dim: see latent_attention.py; with compression:
        compressed_attention.py
Cost:   parameters d_model·head_dim·(2·n_heads + 2·n_kv_heads), plus n_heads·head_dim + 2·n_kv_heads·head_dim with
        qkv_bias, d_model with o_bias, 2·head_dim with qk_norm `head`, (n_heads + n_kv_heads)·head_dim with `full`,
        n_heads·n_per_head with learnable sinks; FLOPs per token 2 per projection weight, and 4·n_heads·head_dim per
        visible token for scores and values, of which a dilated window has every window_dilation-th
Errors: CompatibilityError when window_mode is sliding or dilated and no window is given, when dilation and mode
        contradict each other, when rotary words stand beside another positional, or when they contradict each other
Source: Vaswani et al. 2017, arXiv:1706.03762; grouped queries, Ainslie et al. 2023, arXiv:2305.13245; windows, dilated
        ones among them, Beltagy et al. 2020, arXiv:2004.05150; softcap, Gemma team 2024, arXiv:2408.00118; sinks, Xiao
        et al. 2023, arXiv:2309.17453, and OpenAI 2025, gpt-oss, arXiv:2508.10925
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Features, Linear, Primitive, Problem, Rotation, attention_scale
from eulerstack.plugins.primitive import Backend
from eulerstack_mixers.declarations.compressed_attention import (
    COMPRESSION_WORDS,
    check_compression,
    compressed_cost,
    resolve_compression,
    teaches_indexer,
)
from eulerstack_mixers.declarations.latent_attention import LATENT_WORDS, check_latent, latent_cost, resolve_latent
from eulerstack_mixers.declarations.native_sparse_attention import is_native, native_cost
from eulerstack_mixers.declarations.rope_scaling import SEE as SEE_ROPE
from eulerstack_mixers.declarations.rope_scaling import check_rope, resolve_scaling, scaling_schema
from eulerstack_mixers.declarations.words import Schema, block, boolean, choice, integer, number

Params = Mapping[str, Any]

# The flash kernels that transformers can hand the logits of attention sinks to.
FLASH_WITH_SINKS = ("kernels-community/vllm-flash-attn3", "flash_attention_4")
SEE_WINDOW = "reference/errors.md#attention-window"

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

SINKS: Schema = {
    "type": ["object", "null"],
    "description": (
        "Logits of each head that take a share of every softmax and bring no value, so that a head may attend to "
        "nothing; null: none."
    ),
    "default": None,
    "properties": {
        "n_per_head": integer("Sinks of each head; n of logit 0 add n to the sum below the fraction.", 1, minimum=1,
                              maximum=1024),
        "learnable": boolean("Whether each sink's logit is a parameter; otherwise it is 0.", True),
    },
    "additionalProperties": False,
}  # fmt: skip

SCHEMA = block(
    {
        "qkv_bias": boolean(
            "Biases on the query, key and value projections; with latent_dim on those that make the latents.", False
        ),
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
            "How the window lies: standard lets a window, where one is given, slide; sliding requires one; dilated "
            "sees every window_dilation-th token of one, counted back from the current token; nsa has it beside "
            "compressed and selected blocks, as compression nsa_learned.",
            ("standard", "sliding", "dilated", "nsa"),
            "standard",
        ),
        "window_dilation": integer(
            "Tokens from one visible token of a dilated window to the next, so at least 2; below window. null: not "
            "dilated.",
            None,
            nullable=True,
            minimum=2,
            maximum=2**30,
        ),
        **LATENT_WORDS,
        **COMPRESSION_WORDS,
        "attention_sinks": SINKS,
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
            "Factor on the dot product of query and key; null: head_dim ** -0.5, with latent_dim (head_dim + "
            "rope_head_dim) ** -0.5, times the square of yarn's factor for mscale_all_dim; under mup 8 / width "
            "instead of width ** -0.5.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "rope": ROPE_OVERRIDE,
    },
    "Parameters of causal softmax attention.",
)


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Makes `rope` false or complete, and fills the words of latent attention and the scale of µP."""
    filled = resolve_compression(resolve_latent(_resolve_rope(params, model), model))
    head_dim = model["model"]["head_dim"]
    # The standard scale stays unwritten.
    if filled["scale"] is None and (scale := attention_scale(head_dim, model)) != head_dim**-0.5:
        return {**filled, "scale": scale}
    return filled


def _resolve_rope(params: Params, model: Mapping[str, Any]) -> Params:
    """`rope` false or complete: theta, partial_factor, interleaved and scaling."""
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
    yield from _check_window(params)
    yield from check_latent(dims, params)
    yield from check_compression(dims, params)
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
    if params["latent_dim"] is not None:
        return
    yield from check_rope(
        dims.head_dim,
        rope.get("theta", 10000.0),
        rope.get("partial_factor", 1.0),
        rope.get("scaling"),
        "rope.partial_factor",
        "rope.scaling",
    )


def _check_window(params: Params) -> Iterator[Problem]:
    mode, window, dilation = params["window_mode"], params["window"], params["window_dilation"]
    if mode != "standard" and window is None:
        yield Problem(
            "window_mode",
            msg("window_mode is sliding, but there is no window")
            if mode == "sliding"
            else msg("window_mode is dilated, but there is no window"),
            msg("add window with a number of tokens, for example window: 4096, or remove window_mode"),
            SEE_WINDOW,
        )
    if mode == "dilated" and dilation is None:
        yield Problem(
            "window_mode",
            msg("window_mode is dilated, but there is no window_dilation"),
            msg("add window_dilation with a number of tokens, for example window_dilation: 2"),
            SEE_WINDOW,
        )
    elif mode != "dilated" and dilation is not None:
        yield Problem(
            "window_dilation",
            msg("window_dilation has a meaning only with window_mode: dilated"),
            msg("add window_mode: dilated, or delete window_dilation"),
            SEE_WINDOW,
        )
    elif dilation is not None and window is not None and dilation >= window:
        yield Problem(
            "window_dilation",
            msg("with a window of {window} and a dilation of {dilation} no earlier token is visible", window=window,
                dilation=dilation),
            msg("type a window_dilation below window"),
            SEE_WINDOW,
        )  # fmt: skip


def span_of(params: Params) -> int | None:
    """Tokens from the farthest visible one to the current one, both included; None: from the first."""
    window, dilation = params["window"], params["window_dilation"]
    return window if window is None or dilation is None else (window - 1) // dilation * dilation + 1


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one attention layer."""
    if params["compression"] is not None:
        price = native_cost if is_native(params) else compressed_cost
        whole = price(dims, params, element_bytes)
        return replace(whole, params=whole.params + _learned_sinks(dims, params))
    price = _cost if params["latent_dim"] is None else latent_cost
    span = span_of(params)
    whole = price(dims, params, element_bytes)
    return replace(
        whole,
        params=whole.params + _learned_sinks(dims, params),
        state_window=None if span is None else span - 1,
        context_stride=params["window_dilation"] or 1,
    )


def _learned_sinks(dims: Dims, params: Params) -> int:
    sinks = params["attention_sinks"]
    return dims.n_heads * sinks["n_per_head"] if sinks is not None and sinks["learnable"] else 0


def _cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    queries, keys = dims.n_heads * dims.head_dim, dims.n_kv_heads * dims.head_dim
    weights = dims.d_model * (2 * queries + 2 * keys)
    biases = (queries + 2 * keys if params["qkv_bias"] else 0) + (dims.d_model if params["o_bias"] else 0)
    norms = {"none": 0, "head": 2 * dims.head_dim, "full": queries + keys}[params["qk_norm"]]
    return Cost(
        params=weights + biases + norms,
        safe_params=norms,
        flops_per_token=2 * weights,
        flops_per_token_per_context=4 * queries,
        state_bytes_per_token=2 * keys * element_bytes,
    )


def cache(params: Params) -> CacheLayer:
    """The cache slot: everything, or what a window still needs."""
    if params["compression"] is not None:
        return CacheLayer("eulerstack_state")
    span, dilation = span_of(params), params["window_dilation"]
    if span is None:
        return CacheLayer("full_attention")
    if dilation is not None:
        return CacheLayer(f"eulerstack_dilated_{span}_{dilation}")
    return CacheLayer("sliding_attention", span)


def features(dims: Dims, params: Params) -> Features:
    """The rotation, and which implementations of attention leave a part of this one out."""
    if params["compression"] is not None:
        # Blocks have positions of their own, and masks that only eager and sdpa take.
        if is_native(params):
            # It computes by itself, whatever other layers take.
            return Features(unsupported=("serving",))
        softened = params["softcap"] is not None or params["attention_sinks"] is not None
        return Features(unsupported=(*(("sdpa",) if softened else ()), "flash", "flex", "serving"))
    rope, latent = params["rope"], params["latent_dim"] is not None
    # sdpa, older flash kernels and serving engines would leave sinks out without a word; sdpa a softcap as well. Flash
    # kernels know windows, but no gaps in them. Serving engines make room for heads of head_dim everywhere.
    refused: dict[Backend, bool] = {
        "sdpa": params["softcap"] is not None or params["attention_sinks"] is not None,
        "flash": params["window_mode"] == "dilated",
        "serving": latent or params["window_mode"] == "dilated" or params["attention_sinks"] is not None,
    }
    return Features(
        rotation=Rotation("rope", {**rope, "head_dim": params["rope_head_dim"] if latent else dims.head_dim})
        if rope
        else None,
        unsupported=tuple(backend for backend, refuses in refused.items() if refuses),
        flash_kernels=FLASH_WITH_SINKS if params["attention_sinks"] is not None else (),
        lazy_cache=latent,
    )


def tensor_parallel(params: Params) -> Mapping[str, str]:
    """Projections split by heads; they stay whole where something needs all heads at once.

    That is a norm over the full width, a latent or keys that all heads share, and a table of sinks.
    """
    shared = any(params[word] is not None for word in ("latent_dim", "compression", "attention_sinks"))
    if params["qk_norm"] == "full" or shared:
        return {}
    return {"q_proj": "colwise", "k_proj": "colwise", "v_proj": "colwise", "o_proj": "rowwise"}


def linears(dims: Dims, params: Params) -> tuple[Linear, ...]:
    """The four projections; none where a latent or a compression looks into their weights."""
    if params["latent_dim"] is not None or params["compression"] is not None:
        return ()
    queries, keys = dims.n_heads * dims.head_dim, dims.n_kv_heads * dims.head_dim
    return (
        Linear(
            "q_proj", dims.d_model, queries, params["qkv_bias"], "query" if params["qk_norm"] == "none" else "hidden"
        ),
        Linear("k_proj", dims.d_model, keys, params["qkv_bias"]),
        Linear("v_proj", dims.d_model, keys, params["qkv_bias"]),
        Linear("o_proj", queries, dims.d_model, params["o_bias"], "output"),
    )


def implementation(params: Params) -> str:
    """The class: with a latent or a compression, another one."""
    compression = params.get("compression")
    if compression is not None and compression["type"] == "nsa_learned":
        return "eulerstack_mixers.modules.native_sparse_attention:NativeSparseAttention"
    if compression is not None:
        return "eulerstack_mixers.modules.compressed_attention:CompressedAttention"
    if params.get("latent_dim") is not None:
        return "eulerstack_mixers.modules.latent_attention:LatentAttention"
    return "eulerstack_mixers.modules.attention:Attention"


ATTENTION = Primitive(
    name="attention",
    kind="mixer",
    summary="causal softmax attention: multi-head, grouped, multi-query, latent, compressed; global or windowed",
    paper="arXiv:1706.03762",
    module="eulerstack_mixers.modules.attention:Attention",
    implementations=implementation,
    reference="eulerstack_mixers.reference.attention:attention",
    schema=SCHEMA,
    resolve=resolve,
    checks=checks,
    cost=cost,
    linears=linears,
    cache=cache,
    features=features,
    adds_loss=teaches_indexer,
    config_fields=lambda params, model: {"attention_dropout": params["attn_drop"]},
    state=("kv_cache",),
    tensor_parallel=tensor_parallel,
)
