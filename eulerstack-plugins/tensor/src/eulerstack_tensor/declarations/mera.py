"""The linear layer `vendor.tensor.mera`: a binary multi-scale entanglement renormalisation ansatz. Imports no torch.

A matrix W (out, in) whose sides are split into legs is a tensor with a site for each pair of legs (o_s, i_s). It is
made from the top down: a tensor of two sites; at every level each site becomes two by an isometry, and neighbours that
come from different sites are mixed by a disentangler, a square matrix on two sites. Unlike a tree, every cut through it
passes several bonds.

Cost:   parameters, the sum of all tensors'; FLOPs, 2 for every multiply-add of making the matrix, once for every pass
        however many tokens it has, and 2·out·in for each token. It saves parameters, not FLOPs
State:  the matrix, out·in elements, while a pass needs it
Source: Vidal 2007, arXiv:cond-mat/0512165; the algorithm: Evenbly & Vidal 2009, arXiv:0707.1454
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive

Params = Mapping[str, Any]


def making(levels: tuple[tuple[int, ...], ...]) -> tuple[int, int]:
    """(parameters, FLOPs) of making the matrix from its tensors."""
    top = levels[-1]
    weights, flops = math.prod(top), 0
    for above, below in zip(levels[:0:-1], levels[-2::-1], strict=True):
        sites = list(above)
        for place, bond in enumerate(above):
            pair = below[2 * place : 2 * place + 2]
            weights += bond * math.prod(pair)
            # Sites before this one have become two already.
            sites[2 * place : 2 * place + 1] = pair
            flops += 2 * bond * math.prod(sites)
        for place in range(1, len(below) - 1, 2):
            pair_size = below[place] * below[place + 1]
            weights += pair_size**2
            flops += 2 * pair_size * math.prod(below)
    return weights, flops


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Making the matrix, once for every pass, and multiplying by it."""
    weights, made = making(params["levels"])
    product = 2 * params["in_features"] * params["out_features"]
    return Cost(
        params=weights + (params["out_features"] if params["bias"] else 0),
        flops_per_token=product,
        prefill_flops=lambda tokens: made + product * tokens,
        decode_flops=lambda tokens: made + product,
    )


MERA = Primitive(
    name="vendor.tensor.mera",
    kind="linear",
    summary="matrix as a binary MERA: isometries and disentanglers on several scales",
    paper="arXiv:cond-mat/0512165",
    cost=cost,
    module="eulerstack_tensor.modules.mera:MeraLinear",
    reference="eulerstack_tensor.reference.contraction:mera",
)
