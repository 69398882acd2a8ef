"""Neural memory: a small network beside the mixer, trained on each token while the model reads it.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model), added to what the mixer gives
State:  the network's P weights in float32, as many for the momentum, as many again for the weights before the present
        mini-batch, and 8 bytes that count tokens, where mini_batch is over 1; P = d_model² for one layer, otherwise
        2·d_model·hidden + (depth − 2)·hidden². Bytes do not grow with time. None without updates
Cost:   parameters 4·d_model² for the projections, d_model + 1 for each gate (rate, momentum, forgetting) and P; without
        updates 2·d_model² + P. FLOPs per token are those of the recurrence: 2 per weight of the projections, and of the
        network 2·P to predict, 2·(P − first layer) for the gradient, 2·P to update and 2·P to read
Errors: CompatibilityError when one layer is given a hidden width, and when a memory without updates is given words
        about updates
Source: Behrouz et al. 2025, arXiv:2501.00663, sections 3.1 and 3.2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import MEMORY_WORDS, CacheLayer, Cost, Dims, Primitive, Problem, check_updating

Params = Mapping[str, Any]

UPDATING = {"inner_lr": 0.001, "momentum": 0.9, "forget": 0.01, "mini_batch": 16}
SEE = "reference/errors.md#memory"


def gate_word(description: str) -> dict[str, Any]:
    """The schema of a gate's beginning."""
    return {
        "type": ["number", "null"],
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": None,
        "description": description,
    }


INLINE: dict[str, Any] = {
    **MEMORY_WORDS,
    "inner_lr": {
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
        "maximum": 1000,
        "default": None,
        "description": "Largest learning rate of the memory, of which each token's gate takes a part. null: 0.001.",
    },
    "momentum": gate_word(
        "Where the learned gate begins that keeps earlier surprise; 0: there is none, and no momentum. null: 0.9."
    ),
    "forget": gate_word("Where the learned gate begins that decays the memory; 0: there is none. null: 0.01."),
    "depth": {
        "type": "integer",
        "minimum": 1,
        "maximum": 64,
        "default": 2,
        "description": "Layers of the memory's network, with gelu between them; 1: a matrix.",
    },
    "mini_batch": {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": 65536,
        "default": None,
        "description": (
            "Tokens whose gradients are taken at the same weights, so that they are computed together; 1: each at the "
            "newest. null: 16."
        ),
    },
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Sizes of the memory's network.",
    "properties": {
        "hidden": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**20,
            "default": None,
            "description": "Width between the layers of the network, in channels; null: d_model.",
        },
    },
    "additionalProperties": False,
}


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Fills the words whose default depends on others."""
    filled = dict(params)
    if filled["update_at_inference"]:
        filled |= {word: value for word, value in UPDATING.items() if filled[word] is None}
    if filled["hidden"] is None and filled["depth"] > 1:
        filled["hidden"] = model["model"]["d_model"]
    return filled


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Words that would have no effect."""
    yield from check_updating(params, *UPDATING)
    if params["depth"] == 1 and params["hidden"] is not None:
        yield Problem(
            "hidden",
            msg("a memory of depth 1 has no hidden width"),
            msg("Delete hidden, or type depth: 2"),
            SEE,
        )


def network_widths(d_model: int, params: Params) -> list[int]:
    """The widths between and around the network's layers."""
    return [d_model, *(params["depth"] - 1) * [params["hidden"]], d_model]


def network_weights(d_model: int, params: Params) -> int:
    """Scalars of the network."""
    widths = network_widths(d_model, params)
    return sum(given * made for given, made in zip(widths[:-1], widths[1:], strict=True))


def state_bytes(d_model: int, params: Params) -> int:
    """Bytes of one sequence's memory."""
    if not params["update_at_inference"]:
        return 0
    batched = params["mini_batch"] > 1
    return 4 * network_weights(d_model, params) * (1 + (params["momentum"] > 0) + batched) + 8 * batched


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one layer's memory; the state is float32 whatever the model's dtype."""
    width, network = dims.d_model, network_weights(dims.d_model, params)
    if not params["update_at_inference"]:
        return Cost(params=2 * width**2 + network, flops_per_token=2 * (2 * width**2 + network))
    gates = 1 + (params["momentum"] > 0) + (params["forget"] > 0)
    projections = 4 * width**2 + gates * width
    first = width * network_widths(width, params)[1]
    return Cost(
        params=projections + gates + network,
        flops_per_token=2 * projections + 8 * network - 2 * first,
        state_bytes_fixed=state_bytes(width, params),
    )


NEURAL_MEMORY = Primitive(
    name="neural_memory",
    kind="memory",
    summary="a small network that is trained on each token, by its surprise, while the model reads",
    paper="arXiv:2501.00663",
    module="eulerstack_titans.modules.neural_memory:NeuralMemory",
    reference="eulerstack_titans.reference.neural_memory:neural_memory",
    schema=SCHEMA,
    block="params",
    inline=INLINE,
    resolve=resolve,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
)
