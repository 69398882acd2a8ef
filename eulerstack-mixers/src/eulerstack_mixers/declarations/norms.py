"""Normalisations over the channels of a token.

Shapes: (batch, time, d_model) -> (batch, time, d_model)
Cost:   rmsnorm d_model parameters; layernorm d_model, twice with bias; no multiply-adds are counted
Source: RMSNorm, Zhang and Sennrich 2019, arXiv:1910.07467; LayerNorm, Ba et al. 2016, arXiv:1607.06450
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack_mixers.declarations.words import boolean, number

Params = Mapping[str, Any]

EPS = number(
    "Added to the mean square or variance before the root; null: model.norm_eps.",
    None,
    nullable=True,
    exclusiveMinimum=0,
)


def _resolve(params: Params, model: Mapping[str, Any]) -> Params:
    return {**params, "eps": model["model"]["norm_eps"] if params["eps"] is None else params["eps"]}


def _rmsnorm_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    return Cost(params=dims.d_model)


def _layernorm_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    return Cost(params=dims.d_model * (2 if params["bias"] else 1))


def _config_fields(params: Params, model: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"rms_norm_eps": params["eps"]}


NORMS = (
    Primitive(
        name="rmsnorm",
        kind="norm",
        summary="divides by the root mean square, times a learned weight",
        paper="arXiv:1910.07467",
        module="eulerstack_mixers.modules.norms:RMSNorm",
        reference="eulerstack_mixers.reference.norms:rmsnorm",
        inline={
            "eps": EPS,
            "zero_centered": boolean("Store the weight as its offset from 1, so that zero means no change.", False),
        },
        resolve=_resolve,
        cost=_rmsnorm_cost,
        config_fields=_config_fields,
    ),
    Primitive(
        name="layernorm",
        kind="norm",
        summary="subtracts the mean, divides by the standard deviation, times a learned weight",
        paper="arXiv:1607.06450",
        module="eulerstack_mixers.modules.norms:LayerNorm",
        reference="eulerstack_mixers.reference.norms:layernorm",
        inline={"eps": EPS, "bias": boolean("Add a learned bias.", True)},
        resolve=_resolve,
        cost=_layernorm_cost,
        config_fields=_config_fields,
    ),
)
