"""The words of native sparse attention in an attention block, what follows from them, and its price.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  for a cache element of e bytes, t tokens, k = 2·n_kv_heads·head_dim, l = m_block and w = window, for each
        sequence: 8, the number of its tokens; e·k·t, every token; e·k for each complete block, of which there are
        ⌊(t − l) / stride⌋ + 1; e·k·min(t, l − 1), what is not pooled yet; without shared_kv e·k·min(t, w − 1)
Cost:   parameters, for h = head_dim: d_model·h·(2·n_heads + 2·s·n_kv_heads) with s = 3 sets of keys and values (1 with
        shared_kv), 3·d_model·n_heads for gates, and for pool mlp 2·(l·h + 4·l·h² + 4·h²). FLOPs of a token: 2 per
        weight of a projection, 16·n_kv_heads·h²·(l + 1) / stride for pooling with mlp, and 4·n_heads·h for each block
        and token that it reads: all complete blocks, the tokens of the selected ones, the window's
Errors: CompatibilityError for words that contradict it: see check_native
Source: Yuan et al. 2025, arXiv:2502.11089
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import Message, msg
from eulerstack.plugins import Cost, Dims, Problem

Params = Mapping[str, Any]
SEE = "reference/errors.md#native-sparse-attention"
# Bytes of a row's number of tokens, an int64.
COUNT_BYTES = 8
# The first block, the query's own and the one before it.
LEAST_BLOCKS = 3
DEFAULT_NATIVE_WINDOW = 512
NATIVE_DEFAULTS: dict[str, Any] = {"m_block": 32, "pool": "mlp", "top_k_blocks": 16, "shared_kv": False}


def is_native(params: Params) -> bool:
    """Whether an attention block says native sparse attention, by either of its words."""
    compression = params["compression"]
    return params["window_mode"] == "nsa" if compression is None else compression["type"] == "nsa_learned"


def resolve_native(params: Params) -> Params:
    """Fills the sizes, and each of the two words by which it is asked for from the other."""
    given = params["compression"] or {}
    filled = {
        "type": "nsa_learned",
        "indexer": None,
        **NATIVE_DEFAULTS,
        **{word: value for word, value in given.items() if value is not None},
    }
    length = filled["m_block"]
    filled.setdefault("stride", length if length % 2 else length // 2)
    filled.setdefault("select_block", 2 * length)
    mode = "nsa" if params["window_mode"] == "standard" else params["window_mode"]
    return {
        **params,
        "compression": filled,
        "window_mode": mode,
        "window": params["window"] or DEFAULT_NATIVE_WINDOW,
    }


def check_native(params: Params) -> Iterator[Problem]:
    """Contradictions of the words of native sparse attention with each other and with the rest of the block."""
    compression = params["compression"]
    if params["window_mode"] != "nsa":
        yield _problem(
            "window_mode",
            msg("native sparse attention has a window of its own kind"),
            msg("type window_mode: nsa, or delete compression"),
        )
    for word in ("latent_dim", "qk_norm", "attention_sinks"):
        if params[word] not in (None, "none"):
            yield _problem(
                word,
                msg("native sparse attention has no {word}", word=word),
                msg("delete {word}, or what asks for native sparse attention", word=word),
            )
    if compression["indexer"] is not None:
        yield _problem(
            "compression.indexer",
            msg("native sparse attention chooses by the weights of its own blocks, not by an indexer"),
            msg("delete indexer, or type csa"),
        )
    for word in ("m_block", "select_block"):
        if compression[word] % compression["stride"]:
            yield _problem(
                f"compression.{word}",
                msg("{word} {size} is no multiple of the stride, {stride}", word=word, size=compression[word],
                    stride=compression["stride"]),
                msg("choose sizes that stride divides, as in m_block: 32, stride: 16, select_block: 64"),
            )  # fmt: skip
    if compression["top_k_blocks"] < LEAST_BLOCKS:
        yield _problem(
            "compression.top_k_blocks",
            msg("{count} blocks leave no room for the first, the query's own and the one before, which are always "
                "selected", count=compression["top_k_blocks"]),
            msg("type top_k_blocks: {least} or more", least=LEAST_BLOCKS),
        )  # fmt: skip


def _problem(path: str, what: Message, fix: Message) -> Problem:
    return Problem(path, what, fix, SEE)


def native_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer."""
    compression, window, width = params["compression"], params["window"], dims.head_dim
    length, stride, wide, number, shared = (
        compression[word] for word in ("m_block", "stride", "select_block", "top_k_blocks", "shared_kv")
    )
    queries, keys = dims.n_heads * width, dims.n_kv_heads * width
    sets = 1 if shared else 3
    weights = dims.d_model * (2 * queries + 2 * sets * keys + 3 * dims.n_heads)
    biases = (queries + 2 * sets * keys if params["qkv_bias"] else 0) + (dims.d_model if params["o_bias"] else 0)
    learned = compression["pool"] == "mlp"
    pool_weights = 2 * (4 * length * width * width + 4 * width * width) if learned else 0
    # Both pools run once a block for every head of keys.
    pooling = 2 * pool_weights * dims.n_kv_heads
    every_token, visible = 2 * weights, 4 * queries

    def blocks(tokens: int) -> int:
        return max(0, (tokens - length) // stride + 1)

    def selected(tokens: int) -> int:
        """Tokens of the selected blocks, the last of which is the token's own and may be unfinished."""
        return min(tokens, (number - 1) * wide + (tokens - 1) % wide + 1)

    def decode_flops(tokens: int) -> int:
        read = blocks(tokens) + selected(tokens) + min(tokens, window)
        return every_token + visible * read + pooling // stride

    def prefill_flops(tokens: int) -> int:
        whole = min(tokens, number * wide)
        later, rest = divmod(tokens - whole, wide)
        read = whole * (whole + 1) // 2 + (tokens - whole) * (number - 1) * wide
        read += later * (wide * (wide + 1) // 2) + rest * (rest + 1) // 2
        near = min(tokens, window)
        read += near * (near + 1) // 2 + (tokens - near) * window
        # From token `length` on there are 1, 1, …, 2, 2, … blocks, each number `stride` times.
        after = max(0, tokens - length + 1)
        turns, left = divmod(after, stride)
        read += stride * turns * (turns + 1) // 2 + left * (turns + 1)
        return (every_token + pooling // stride) * tokens + visible * read

    token_bytes = 2 * keys * element_bytes

    def state_bytes(tokens: int) -> int:
        held = tokens + blocks(tokens) + min(tokens, length - 1) + (0 if shared else min(tokens, window - 1))
        return COUNT_BYTES + token_bytes * held

    return Cost(
        params=weights + biases + pool_weights + (2 * length * width if learned else 0),
        flops_per_token=every_token,
        decode_flops=decode_flops,
        prefill_flops=prefill_flops,
        state_bytes_fixed=COUNT_BYTES + token_bytes * (length - 1 + (0 if shared else window - 1)),
        state_bytes_per_token=token_bytes + -(-token_bytes // stride),
        state_bytes=state_bytes,
    )
