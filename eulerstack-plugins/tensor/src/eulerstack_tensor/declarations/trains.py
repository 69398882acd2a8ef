"""The linear layers `vendor.tensor.tensor_train` and `vendor.tensor.matrix_product_state`. Imports no torch.

Both hold a matrix W (out, in) whose sides are split into legs, out = o_1···o_n and in = i_1···i_n, as a chain of
tensors joined by bonds:

    tensor_train          W[o_1…o_n, i_1…i_n] = G_1[o_1, i_1] ··· G_n[o_n, i_n]: legs of both sides in one core (an
                          operator)
    matrix_product_state  W[o_1…o_n, i_1…i_n] = A_1[o_1] ··· A_n[o_n] B_1[i_1] ··· B_n[i_n]: a core for every leg; the
                          bond in the middle is a bottleneck between the two sides

Cost:   parameters, the sum of the cores'; FLOPs per token, 2 for every multiply-add of the contraction with the input,
        core after core; the matrix itself is never made
Errors: CompatibilityError when a width can't be split into so many factors above 1
Source: Oseledets 2011, SIAM J. Sci. Comput. 33(5); matrices: Novikov et al. 2015, arXiv:1509.06569; states: Schollwöck
        2011, arXiv:1008.3477
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack_tensor.declarations.shapes import bonds

Params = Mapping[str, Any]


def operator_bonds(outs: tuple[int, ...], ins: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The bonds of a tensor train."""
    return bonds([out * into for out, into in zip(outs, ins, strict=True)], rank)


def state_bonds(outs: tuple[int, ...], ins: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The bonds of a matrix product state."""
    return bonds([*outs, *ins], rank)


def operator_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Cores (bond, out leg, in leg, bond), contracted from the first to the last."""
    outs, ins, ranks = params["out_factors"], params["in_factors"], params["bonds"]
    weights = flops = 0
    for place, (out, into) in enumerate(zip(outs, ins, strict=True)):
        core = ranks[place] * out * into * ranks[place + 1]
        weights += core
        flops += 2 * math.prod(outs[:place]) * math.prod(ins[place + 1 :]) * core
    return _cost(params, weights, flops)


def state_cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Cores (bond, leg, bond), contracted with the input from the last to the first."""
    legs, ranks = (*params["out_factors"], *params["in_factors"]), params["bonds"]
    sides = len(params["out_factors"])
    weights = flops = 0
    for place, leg in enumerate(legs):
        core = ranks[place] * leg * ranks[place + 1]
        weights += core
        # The legs that are there already, or still, beside the one that is contracted.
        others = math.prod(legs[place + 1 : sides]) if place < sides else math.prod(legs[sides:place])
        flops += 2 * others * core
    return _cost(params, weights, flops)


def _cost(params: Params, weights: int, flops: int) -> Cost:
    return Cost(params=weights + (params["out_features"] if params["bias"] else 0), flops_per_token=flops)


TENSOR_TRAIN = Primitive(
    name="vendor.tensor.tensor_train",
    kind="linear",
    summary="matrix as a tensor train: a chain of cores, each with a leg of either side",
    paper="arXiv:1509.06569",
    cost=operator_cost,
    module="eulerstack_tensor.modules.trains:TensorTrainLinear",
    reference="eulerstack_tensor.reference.contraction:tensor_train",
)
PRODUCT_STATE = Primitive(
    name="vendor.tensor.matrix_product_state",
    kind="linear",
    summary="matrix as a matrix product state: a chain of cores, the outputs' legs before the inputs'",
    paper="arXiv:1008.3477",
    cost=state_cost,
    module="eulerstack_tensor.modules.trains:ProductStateLinear",
    reference="eulerstack_tensor.reference.contraction:product_state",
)
