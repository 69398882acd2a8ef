"""Multi-scale retention (RetNet): its words, its price, what it keeps.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  n_heads matrices of d_key × d_value in float32 whatever the model's dtype; bytes do not grow with time
Cost:   parameters d_model·(d_key·(n_heads + n_kv_heads) + d_value·(n_kv_heads + 2·n_heads)), one n_heads fewer without
        the gate; FLOPs of a decoded token 2 per parameter and 4·n_heads·d_key·d_value; of a prompt `prefill_flops`
Errors: CompatibilityError when value_factor · head_dim is no whole number, or head_dim is odd and channels rotate
Source: Sun et al. 2023, arXiv:2307.08621
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Kernel, Linear, Primitive, Problem
from eulerstack_mixers.declarations.words import block, boolean, integer, number

Params = Mapping[str, Any]

SEE = "reference/errors.md#retnet-widths"
DEFAULT_CHUNK = 128
SCHEMA = block(
    {
        "chunkwise": boolean(
            "How several tokens are processed at once: true in chunks, with FLOPs and memory linear in their number; "
            "false all in one, quadratic. The same function.",
            True,
        ),
        "chunk_size": integer(
            "Tokens a chunk of the chunkwise form; the same function for any. fla's kernel has chunks of its own. "
            "null: 128 where chunkwise is true.",
            None,
            nullable=True,
            minimum=1,
            maximum=2**20,
        ),
        "rope": boolean(
            "Whether queries and keys are rotated by their position, as xPos does; the base is embedding.rope_theta "
            "where embedding.positional is rope, otherwise 10000.",
            True,
        ),
        "value_factor": number(
            "Width of a head's values over that of its queries and keys, head_dim; their product must be whole.",
            2.0,
            exclusiveMinimum=0,
            maximum=64,
        ),
        "gate": boolean("Whether the output is multiplied by the swish of another projection of the input.", True),
    },
    "Parameters of multi-scale retention.",
)


def value_dim(dims: Dims, params: Params) -> int:
    """Channels of one head's values."""
    return round(params["value_factor"] * dims.head_dim)


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Gives a chunkwise retention its chunks."""
    size = DEFAULT_CHUNK if params["chunkwise"] and params["chunk_size"] is None else params["chunk_size"]
    return {**params, "chunk_size": size}


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Widths that can't be built, and chunks of a retention that has none."""
    if not params["chunkwise"] and params["chunk_size"] is not None:
        yield Problem(
            "chunk_size",
            msg("chunk_size has a meaning only with chunkwise: true"),
            msg("type chunkwise: true, or delete chunk_size"),
            "reference/errors.md#retnet-chunks",
        )
    width = params["value_factor"] * dims.head_dim
    if abs(width - round(width)) > 1e-6 or round(width) < 1:
        yield Problem(
            "value_factor",
            msg(
                "value_factor {factor} times head_dim {head_dim} is {width}, which is not a whole number of channels",
                factor=params["value_factor"],
                head_dim=dims.head_dim,
                width=width,
            ),
            msg("Type value_factor: {factor}", factor=max(1, round(width)) / dims.head_dim),
            SEE,
        )
    if params["rope"] and dims.head_dim % 2:
        yield Problem(
            "rope",
            msg("head_dim is {head_dim}, but channels rotate in pairs", head_dim=dims.head_dim),
            msg("choose an even head_dim, or type rope: false"),
            SEE,
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and state bytes of one retention layer."""
    heads, key_dim, values = dims.n_heads, dims.head_dim, value_dim(dims, params)
    outputs = heads * values * (2 if params["gate"] else 1)
    weights = dims.d_model * (key_dim * (heads + dims.n_kv_heads) + values * dims.n_kv_heads + outputs)
    # Writing a token into the state and reading the state cost a multiply-add for each of its elements.
    touch = 2 * heads * key_dim * values

    def prefill_flops(tokens: int) -> int:
        """Inside a chunk a token meets itself and the earlier ones; from the second chunk on it reads the state too."""
        chunk = min(params["chunk_size"], tokens) if params["chunkwise"] else tokens
        whole, rest = divmod(tokens, chunk)
        pairs = whole * chunk * (chunk + 1) // 2 + rest * (rest + 1) // 2
        return 2 * weights * tokens + 2 * heads * (key_dim + values) * pairs + touch * (tokens + tokens - chunk)

    return Cost(
        params=weights,
        flops_per_token=2 * weights + 2 * touch,
        prefill_flops=prefill_flops,
        state_bytes_fixed=4 * heads * key_dim * values,
    )


def linears(dims: Dims, params: Params) -> tuple[Linear, ...]:
    """The projections: queries, keys, values, the gate where there is one, the output."""
    heads, keys, key_dim, values = dims.n_heads, dims.n_kv_heads, dims.head_dim, value_dim(dims, params)
    gate = (Linear("g_proj", dims.d_model, heads * values),) if params["gate"] else ()
    return (
        Linear("q_proj", dims.d_model, heads * key_dim),
        Linear("k_proj", dims.d_model, keys * key_dim),
        Linear("v_proj", dims.d_model, keys * values),
        *gate,
        Linear("o_proj", heads * values, dims.d_model, role="output"),
    )


RETNET = Primitive(
    name="retnet",
    kind="mixer",
    summary="multi-scale retention: parallel in training, chunkwise over long inputs, recurrent while decoding",
    paper="arXiv:2307.08621",
    module="eulerstack_mixers.modules.retnet:Retention",
    reference="eulerstack_mixers.reference.retnet:retention",
    schema=SCHEMA,
    resolve=resolve,
    checks=checks,
    cost=cost,
    linears=linears,
    cache=lambda params: CacheLayer("eulerstack_state"),
    state=("ssm_state", "kv_cache"),
    one_state=True,
    kernels=(Kernel("fla chunk_retention", ("fla", "triton")),),
)
