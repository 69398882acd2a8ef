"""The gated feed-forward block: down(activation(gate(x)) ⊙ up(x)).

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  none
Cost:   parameters 3·d_model·d_ff, plus 2·d_ff + d_model with bias; FLOPs per token 2 per weight
Source: Shazeer 2020, arXiv:2002.05202
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Linear, Primitive
from eulerstack_mixers.declarations.words import boolean, choice, hidden_act


def cost(dims: Dims, params: Mapping[str, Any], element_bytes: int) -> Cost:
    """Parameters and FLOPs of one block."""
    weights = 3 * dims.d_model * dims.d_ff
    biases = 2 * dims.d_ff + dims.d_model if params["bias"] else 0
    return Cost(params=weights + biases, flops_per_token=2 * weights)


def linears(dims: Dims, params: Mapping[str, Any]) -> tuple[Linear, ...]:
    """The three projections."""
    return (
        Linear("gate_proj", dims.d_model, dims.d_ff, params["bias"]),
        Linear("up_proj", dims.d_model, dims.d_ff, params["bias"]),
        Linear("down_proj", dims.d_ff, dims.d_model, params["bias"], "output"),
    )


GATED_MLP = Primitive(
    name="gated_mlp",
    kind="ffn",
    summary="gated feed-forward block of three projections (SwiGLU, GeGLU)",
    paper="arXiv:2002.05202",
    module="eulerstack_mixers.modules.gated_mlp:GatedMLP",
    reference="eulerstack_mixers.reference.ffn:gated_mlp",
    inline={
        "activation": choice(
            "Function of the gate: swiglu and silu are one function, as are geglu and gelu; relu2 is relu squared.",
            ("swiglu", "geglu", "gelu", "gelu_tanh", "relu", "relu2", "silu"),
            "swiglu",
        ),
        "bias": boolean("Biases on the three projections.", False),
    },
    cost=cost,
    linears=linears,
    config_fields=hidden_act,
    tensor_parallel=lambda params: {"gate_proj": "colwise", "up_proj": "colwise", "down_proj": "rowwise"},
)
