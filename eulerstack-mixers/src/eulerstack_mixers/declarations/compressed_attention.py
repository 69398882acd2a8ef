"""The words of compressed attention (DeepSeek-V4's CSA and HCA) in an attention block, and their price.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  for a cache element of e bytes, t tokens, h = head_dim, w = window, m = m_block, and p = 2 numbers a channel (a
        key and its score; 1 with pool mean), for each sequence: 8, the number of its tokens; e·h·min(t, w − 1), the
        window; e·h·⌊t / m⌋, the blocks; e·p·h·min(t, m − 1), the unfinished block, and for csa e·p·h·min(t, 2·m − 1),
        which includes the block before. The indexer of csa has blocks and unfinished ones of d_per_head channels
        besides; its finished blocks are of its own dtype
Cost:   parameters of queries d_model·H·h, or (d_model + H·h + 1)·q_latent_dim with q_latent_dim; of keys
        (d_model + 1)·h; of the output H·h·d_model, or o_latent_dim·(H·h + o_groups·d_model) with o_latent_dim; of
        blocks of width c: c·(p·r·d_model + 1), and c·m·r with pool softmax, where r is 2 for csa and 1 for hca; of the
        indexer blocks of width d_per_head, n_heads·(d_per_head·s + d_model) for queries from s channels. FLOPs of a
        token: 2 per weight of a projection; 4·H·h for each visible token and block; 2·n_heads·(d_per_head + 1) for each
        block that the indexer scores; 2·r·c for pooling
Errors: CompatibilityError for words that contradict a compression: see check_compression
Source: DeepSeek-AI 2026, DeepSeek-V4, section 2.3; DeepSeek-V3.2, arXiv:2512.02556
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eulerstack.errors import Message, msg
from eulerstack.plugins import Cost, Dims, Problem
from eulerstack_mixers.declarations.native_sparse_attention import (
    COUNT_BYTES,
    check_native,
    is_native,
    resolve_native,
)
from eulerstack_mixers.declarations.rope_scaling import rotated_width
from eulerstack_mixers.declarations.words import Schema, choice, integer, number

Params = Mapping[str, Any]
SEE = "reference/errors.md#compression"
MAX_WIDTH = 2**20
SHARED_KEYS = ("csa", "hca", "shared")
NATIVE_WORDS = ("stride", "select_block", "shared_kv")
POOLS = {"csa": ("softmax", "mean"), "hca": ("softmax", "mean"), "nsa_learned": ("mlp", "mean")}
BLOCK_WORDS = ("m_block", "pool", "indexer", "top_k_blocks")
DEFAULTS: dict[str, dict[str, Any]] = {
    "csa": {"m_block": 4, "pool": "softmax", "top_k_blocks": 512},
    "hca": {"m_block": 128, "pool": "softmax", "top_k_blocks": None},
    "shared": {"m_block": None, "pool": None, "top_k_blocks": None},
}
DEFAULT_WINDOW = 128
INDEX_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

INDEXER: Schema = {
    "type": ["object", "null"],
    "description": "What chooses among the blocks of csa; null: its defaults with csa, none with hca.",
    "default": None,
    "properties": {
        "arch": choice(
            "lightning: the sum over heads of a weight times the ReLU of query times key.", ("lightning",), "lightning"
        ),
        "n_heads": integer("Heads of the indexer's queries; all share one key a block.", 64, minimum=1, maximum=4096),
        "d_per_head": integer("Channels of the indexer's queries and keys.", 128, minimum=1, maximum=MAX_WIDTH),
        "dtype": choice(
            "Number type that the indexer's queries and keys are rounded to, and that its keys are kept in; scores are "
            "summed in float32.",
            ("float32", "bfloat16", "float16"),
            "float32",
        ),
        "kl_coef": number(
            "Weight in the training loss of the divergence between the indexer's scores and attention's weights, which "
            "alone teaches the indexer; 0: it stays as it is.",
            1.0,
            minimum=0,
        ),
    },
    "additionalProperties": False,
}

COMPRESSION_WORDS: Schema = {
    "compression": {
        "type": ["object", "null"],
        "description": (
            "Blocks of tokens become one key each, read beside a window; null: every token is kept as it is."
        ),
        "default": None,
        "properties": {
            "type": choice(
                "csa: overlapping blocks, of which an indexer chooses; hca: long blocks, all of them seen; "
                "nsa_learned: native sparse attention, which reads blocks, tokens of some blocks, and a window; "
                "shared: the one key of csa and hca for all heads, without blocks.",
                ("csa", "hca", "nsa_learned", "shared"),
            ),
            "m_block": integer(
                "Tokens of a block; null: 4 for csa, 128 for hca, 32 for nsa_learned.",
                None,
                nullable=True,
                minimum=1,
                maximum=MAX_WIDTH,
            ),
            "pool": {
                "type": ["string", "null"],
                "enum": ["softmax", "mean", "mlp", None],
                "description": (
                    "How a block's tokens become one key: softmax, a mean weighted channel by channel by learned "
                    "scores, for csa and hca; mean, all alike; mlp, a perceptron over all of them, for nsa_learned. "
                    "null: softmax, or mlp for nsa_learned."
                ),
                "default": None,
            },
            "indexer": INDEXER,
            "top_k_blocks": integer(
                "Blocks that a token sees, the ones of highest score, in nsa_learned of select_block tokens each; "
                "null: 512 for csa, 16 for nsa_learned. hca sees all.",
                None,
                nullable=True,
                minimum=1,
                maximum=2**30,
            ),
            "stride": integer(
                "Tokens from the beginning of a block of nsa_learned to that of the next, a divisor of m_block; null: "
                "half of m_block, or m_block where that is odd.",
                None,
                nullable=True,
                minimum=1,
                maximum=MAX_WIDTH,
            ),
            "select_block": integer(
                "Tokens of a block that nsa_learned selects, a multiple of stride; null: 2 · m_block.",
                None,
                nullable=True,
                minimum=1,
                maximum=MAX_WIDTH,
            ),
            "shared_kv": {
                "type": ["boolean", "null"],
                "description": (
                    "Whether the three readings of nsa_learned have one set of keys and values instead of one each; "
                    "null: false for nsa_learned."
                ),
                "default": None,
            },
        },
        "required": ["type"],
        "additionalProperties": False,
    },
    "o_latent_dim": integer(
        "Width that each group of heads is projected to before the output projection; null: there is one projection. "
        "Needs compression csa or hca.",
        None,
        nullable=True,
        minimum=1,
        maximum=MAX_WIDTH,
    ),
    "o_groups": integer(
        "Groups of heads that have a projection of their own to o_latent_dim; null: one group. Needs o_latent_dim.",
        None,
        nullable=True,
        minimum=1,
        maximum=MAX_WIDTH,
    ),
}


def shares_keys(params: Params) -> bool:
    """Whether one head of keys, which are the values too, serves all heads of queries."""
    compression = params["compression"]
    return compression is not None and compression["type"] in SHARED_KEYS


def teaches_indexer(params: Params) -> bool:
    """Whether a layer adds to the loss what teaches its indexer."""
    indexer = (params["compression"] or {}).get("indexer")
    return indexer is not None and indexer["kl_coef"] > 0


def resolve_compression(params: Params) -> Params:
    """Fills the sizes that depend on the type, the indexer, the window and the groups of the output projection."""
    if is_native(params):
        return resolve_native(params)
    compression = params["compression"]
    if compression is None:
        return params
    chosen = {word: value for word, value in compression.items() if value is not None}
    filled = {"indexer": None, **dict.fromkeys(NATIVE_WORDS), **DEFAULTS[compression["type"]], **chosen}
    if compression["type"] == "csa" and filled["indexer"] is None:
        filled["indexer"] = {word: schema["default"] for word, schema in INDEXER["properties"].items()}
    return {
        **params,
        "compression": filled,
        "window": params["window"] or DEFAULT_WINDOW,
        "o_groups": params["o_groups"] or (None if params["o_latent_dim"] is None else 1),
    }


def check_compression(dims: Dims, params: Params) -> Iterator[Problem]:
    """Contradictions of the words of compressed attention with each other and with the rest of the block."""
    yield from _check_any(dims, params)
    if not shares_keys(params):
        for word in ("o_latent_dim", "o_groups"):
            if params[word] is not None:
                yield _problem(
                    word,
                    msg("{word} belongs to compressed attention, but there is no compression csa or hca", word=word),
                    msg("add compression, or delete {word}", word=word),
                )
        return
    compression = params["compression"]
    kind = compression["type"]
    for word in NATIVE_WORDS:
        if compression[word] is not None:
            yield _problem(
                f"compression.{word}",
                msg("{word} belongs to nsa_learned", word=word),
                msg("delete {word}, or type nsa_learned", word=word),
            )
    for word in ("latent_dim", "qk_norm"):
        if params[word] not in (None, "none"):
            yield _problem(
                word,
                msg("compression {kind} has one normalised key for all heads, so {word} has no place in it", kind=kind,
                    word=word),
                msg("delete {word}, or compression", word=word),
            )  # fmt: skip
    if params["window_mode"] == "dilated":
        yield _problem(
            "window_mode",
            msg("a window beside compressed blocks has no gaps"),
            msg("delete window_mode and window_dilation, or compression"),
        )
    elif params["window_mode"] == "nsa":
        yield _problem(
            "window_mode",
            msg("nsa is attention of its own, which has no part in {kind}", kind=kind),
            msg("delete window_mode, or type nsa_learned"),
        )
    if kind == "shared":
        for word in BLOCK_WORDS:
            if compression[word] is not None:
                yield _problem(
                    f"compression.{word}",
                    msg("compression shared has no blocks, so {word} says nothing about it", word=word),
                    msg("delete {word}, or type csa or hca", word=word),
                )
    if kind == "hca":
        for word in ("indexer", "top_k_blocks"):
            if compression[word] is not None:
                yield _problem(
                    f"compression.{word}",
                    msg("hca sees every block, so {word} has nothing to choose", word=word),
                    msg("delete {word}, or type csa", word=word),
                )
    groups = params["o_groups"]
    if groups is not None and params["o_latent_dim"] is None:
        yield _problem(
            "o_groups",
            msg("o_groups says how heads are grouped on their way to o_latent_dim, which is not given"),
            msg("add o_latent_dim, or delete o_groups"),
        )
    elif groups is not None and dims.n_heads % groups:
        yield _problem(
            "o_groups",
            msg("{heads} heads do not make {groups} groups of equal size", heads=dims.n_heads, groups=groups),
            msg("choose a divisor of n_heads"),
        )
    rope, indexer = params["rope"], compression["indexer"]
    if rope and indexer is not None and dims.positional == "rope":
        rotated = rotated_width(dims.head_dim, rope.get("partial_factor", 1.0))
        if indexer["d_per_head"] < rotated:
            yield _problem(
                "compression.indexer.d_per_head",
                msg("{rotated} channels rotate, but the indexer has heads of {width}", rotated=rotated,
                    width=indexer["d_per_head"]),
                msg("type d_per_head: {rotated} or more, or a smaller rope.partial_factor", rotated=rotated),
            )  # fmt: skip


def _check_any(dims: Dims, params: Params) -> Iterator[Problem]:
    """What every compression is held to."""
    compression = params["compression"]
    if compression is None:
        return
    pools = POOLS.get(compression["type"], ())
    if pools and compression["pool"] not in pools:
        yield _problem(
            "compression.pool",
            msg("{kind} does not pool by {pool}", kind=compression["type"], pool=compression["pool"]),
            msg("type pool: {first} or {second}", first=pools[0], second=pools[1]),
        )
    if dims.positional not in ("rope", "learned", "none"):
        yield _problem(
            "compression",
            msg("a bias on scores by embedding.positional {positional} does not say how far away a block is",
                positional=dims.positional),
            msg("set embedding.positional: rope, or delete compression"),
        )  # fmt: skip
    if compression["type"] == "nsa_learned":
        yield from check_native(params)


def _problem(path: str, what: Message, fix: Message) -> Problem:
    return Problem(path, what, fix, SEE)


def seen_in_all(tokens: int, spacing: int, most: int | None) -> int:
    """The sum over t = 1 … tokens of min(⌊t / spacing⌋, most)."""
    full = tokens // spacing if most is None else min(tokens // spacing, most)
    # ⌊t / spacing⌋ is 1, 2, …, full − 1 for `spacing` tokens each, then `full`.
    return spacing * full * (full - 1) // 2 + full * max(0, tokens - spacing * full + 1)


def compressed_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer of csa or hca; sinks are the caller's."""
    compression, window = params["compression"], params["window"]
    length, top_k, indexer = compression["m_block"] or 1, compression["top_k_blocks"], compression["indexer"]
    width, query_width, query_latent = dims.head_dim, dims.n_heads * dims.head_dim, params["q_latent_dim"]
    parts = {"csa": 2, "hca": 1, "shared": 0}[compression["type"]]
    weighs = compression["pool"] == "softmax"
    numbers = 2 if weighs else 1
    source = query_latent or dims.d_model

    weights = dims.d_model * query_width if query_latent is None else (dims.d_model + query_width) * query_latent
    weights += dims.d_model * width
    latent, groups = params["o_latent_dim"], params["o_groups"]
    weights += query_width * dims.d_model if latent is None else latent * (query_width + groups * dims.d_model)
    biases = (query_latent or query_width) + width if params["qkv_bias"] else 0
    biases += dims.d_model if params["o_bias"] else 0
    safe = (query_latent or 0) + width

    # What is made into blocks: the keys of attention, and those of the indexer.
    kinds = [(width, element_bytes)] if parts else []
    most = 0 if parts == 0 else top_k
    scored = 0
    if indexer is not None:
        kinds.append((indexer["d_per_head"], INDEX_BYTES[indexer["dtype"]]))
        weights += indexer["n_heads"] * indexer["d_per_head"] * source
        weights += indexer["n_heads"] * dims.d_model
        safe_weights = indexer["n_heads"] * dims.d_model
        scored = 2 * indexer["n_heads"] * (indexer["d_per_head"] + 1)
    else:
        safe_weights = 0
    channels = sum(each for each, _ in kinds)
    weights += numbers * parts * channels * dims.d_model
    safe += channels
    vectors = length * parts * channels if weighs else 0
    every_token = 2 * weights + 2 * parts * channels
    visible = 4 * query_width

    def decode_flops(tokens: int) -> int:
        blocks = tokens // length
        seen = min(tokens, window) + (blocks if most is None else min(blocks, most))
        return every_token + visible * seen + scored * blocks

    def prefill_flops(tokens: int) -> int:
        seen = seen_in_all(tokens, 1, window) + seen_in_all(tokens, length, most)
        return every_token * tokens + visible * seen + scored * seen_in_all(tokens, length, None)

    def state_bytes(tokens: int) -> int:
        tails = min(tokens, length - 1) + (min(tokens, 2 * length - 1) if parts == 2 else 0)
        kept = element_bytes * width * min(tokens, window - 1)
        kept += element_bytes * numbers * channels * tails
        return COUNT_BYTES + kept + sum(each * size for each, size in kinds) * (tokens // length)

    return Cost(
        params=weights + biases + safe + vectors,
        safe_params=safe + safe_weights,
        flops_per_token=every_token,
        decode_flops=decode_flops,
        prefill_flops=prefill_flops,
        state_bytes_fixed=_room(state_bytes, length, window),
        state_bytes_per_token=-(-sum(each * size for each, size in kinds) // length),
        state_bytes=state_bytes,
    )


def _room(state_bytes: Callable[[int], int], length: int, window: int) -> int:
    """The bytes that a long sequence has beside its blocks."""
    long = length * max(2, window)
    return 2 * state_bytes(long) - state_bytes(2 * long)
