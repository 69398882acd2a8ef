"""Hyena: long convolutions with filters computed from positions, between elementwise gates. Imports no torch.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  the gated inputs of every long convolution, (depth − 1)·d_model elements a token, for the last max_seq_len − 1
        tokens; and the last short_conv − 1 inputs of the short convolution, (depth + 1)·d_model elements each
Cost:   parameters d²·(depth + 2) + d·(depth + 2), short convolution d·(depth + 1)·(short_conv + 1), filters
        h·(filter_emb + 1) + 2·h·(h + 1) + h + (depth − 1)·d·(h + 1) for h = filter_hidden; FLOPs per token 2 per weight
        of the projections and convolutions, 2·(depth − 1)·d per visible token when decoding; a whole sequence at once
        costs 5·(depth − 1)·d·log2(time) a token, the authors' count
Errors: CompatibilityError when filter_emb is even
Source: Poli et al. 2023, arXiv:2302.10866
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Dims, Primitive, Problem
from eulerstack_mixers.declarations.words import block, integer, number

Params = Mapping[str, Any]

SCHEMA = block(
    {
        "depth": integer(
            "Order: depth gates with depth - 1 long convolutions between them; projections are (depth + 1) wide.",
            2,
            minimum=2,
            maximum=16,
        ),
        "filter_hidden": integer(
            "Width of the MLP that computes the filters, in channels.", 64, minimum=1, maximum=2**16
        ),
        "filter_decay": number(
            "Factor on the decay of the filters. At 1 the fastest channel falls to 1/100 within 0.3 max_seq_len, the "
            "slowest within 1.5; at 0 none decays.",
            1.0,
            minimum=0,
            maximum=1e6,
        ),
        "short_conv": integer(
            "Tokens that the short convolution after the projections sees, the current one included.",
            3,
            minimum=1,
            maximum=64,
        ),
        "filter_emb": integer(
            "Positional features that the filters are computed from: time, and a cosine and a sine for each of "
            "(filter_emb - 1) / 2 frequencies; odd.",
            33,
            minimum=3,
            maximum=4095,
        ),
    },
    "Parameters of the Hyena operator.",
)


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Contradictions of one Hyena block."""
    features = params["filter_emb"]
    if features % 2 == 0:
        yield Problem(
            "filter_emb",
            msg(
                "filter_emb is {features}, but time and pairs of cosine and sine make an odd number", features=features
            ),
            msg("Type filter_emb: {features}", features=features + 1),
            "reference/errors.md#filter-emb",
        )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Parameters, FLOPs and cache bytes of one Hyena layer."""
    d_model, depth, hidden, taps = dims.d_model, params["depth"], params["filter_hidden"], params["short_conv"]
    inner, filters = (depth + 1) * d_model, (depth - 1) * d_model
    projections = d_model * inner + d_model**2
    mlp = hidden * params["filter_emb"] + hidden + 2 * (hidden**2 + hidden) + hidden + filters * hidden

    def prefill_flops(tokens: int) -> int:
        """The projections token by token, the filters by Fourier transforms of the whole sequence."""
        transforms = 5 * filters * tokens * math.log2(max(tokens, 1))
        return (2 * projections + 2 * inner * taps + 2 * filters) * tokens + round(transforms)

    return Cost(
        params=projections + inner + d_model + inner * (taps + 1) + mlp + filters,
        flops_per_token=2 * projections + 2 * inner * taps + 2 * filters,
        flops_per_token_per_context=2 * filters,
        prefill_flops=prefill_flops,
        state_bytes_per_token=filters * element_bytes,
        state_bytes_fixed=(taps - 1) * inner * element_bytes,
        state_window=dims.max_seq_len - 1,
    )


HYENA = Primitive(
    name="hyena",
    kind="mixer",
    summary="gated long convolutions with implicit filters",
    paper="arXiv:2302.10866",
    module="eulerstack_mixers.modules.hyena:Hyena",
    reference="eulerstack_mixers.reference.hyena:hyena",
    schema=SCHEMA,
    checks=checks,
    cost=cost,
    cache=lambda params: CacheLayer("eulerstack_state"),
)
