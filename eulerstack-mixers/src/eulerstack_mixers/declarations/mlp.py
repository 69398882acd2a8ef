"""The plain feed-forward block: down(activation(up(x))).

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  none
Cost:   parameters 2·d_model·d_ff, plus d_ff + d_model with bias; FLOPs per token 2 per weight
Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3; squared relu, So et al. 2021, arXiv:2109.08668
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Linear, Primitive
from eulerstack_mixers.declarations.words import boolean, choice, hidden_act


def cost(dims: Dims, params: Mapping[str, Any], element_bytes: int) -> Cost:
    """Parameters and FLOPs of one block."""
    weights = 2 * dims.d_model * dims.d_ff
    biases = dims.d_ff + dims.d_model if params["bias"] else 0
    return Cost(params=weights + biases, flops_per_token=2 * weights)


def linears(dims: Dims, params: Mapping[str, Any]) -> tuple[Linear, ...]:
    """Both projections."""
    return (
        Linear("up_proj", dims.d_model, dims.d_ff, params["bias"]),
        Linear("down_proj", dims.d_ff, dims.d_model, params["bias"], "output"),
    )


MLP = Primitive(
    name="mlp",
    kind="ffn",
    summary="plain feed-forward block of two projections",
    paper="arXiv:1706.03762",
    module="eulerstack_mixers.modules.mlp:MLP",
    reference="eulerstack_mixers.reference.ffn:mlp",
    inline={
        "activation": choice(
            "Function between the projections: gelu is exact, gelu_tanh its tanh approximation, relu2 is relu squared.",
            ("gelu", "gelu_tanh", "relu", "relu2", "silu"),
            "gelu",
        ),
        "bias": boolean("Biases on both projections.", False),
    },
    cost=cost,
    linears=linears,
    config_fields=hidden_act,
    tensor_parallel=lambda params: {"up_proj": "colwise", "down_proj": "rowwise"},
)
