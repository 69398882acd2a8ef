"""Matrices as tensor networks: the tensors of a linear layer of this package that come nearest to a given matrix.

Chains are decomposed by tensorly, one singular value decomposition after another (TT-SVD): exact where no bond is cut,
and otherwise within √(cuts) of the best chain with these bonds. A MERA has no such direct way, because its loops leave
no order in which to cut: it begins as the tree that singular values give, its disentanglers as identities, and every
tensor in turn is then set to the best that fits the others, which never makes it worse.

Everything is computed in float64. Needs tensorly (the extra `convert`) for chains.
Source: TT-SVD: Oseledets 2011, SIAM J. Sci. Comput. 33(5), algorithm 1; trees: Grasedyck 2010, SIAM J. Matrix Anal.
        31(4); tensors in turn: Evenbly & Vidal 2009, arXiv:0707.1454, section IV
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eulerstack.errors import CompileError, Diagnostic
from eulerstack_tensor.declarations.messages import SEE, tensor_msg

if TYPE_CHECKING:
    import torch

    from eulerstack_tensor.modules.mera import MeraLinear

SWEEPS = 20
# A sweep that improves the overlap by less than this part of it is the last.
ENOUGH = 1e-7


def decompose(matrix: torch.Tensor, name: str, params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors, by their names in the module of the linear primitive `name` with these parameters, in float64.

    Errors: CompileError where tensorly is missing.
    """
    double = matrix.detach().double()
    if name == "vendor.tensor.tensor_train":
        return _tensor_train(double, params)
    if name == "vendor.tensor.matrix_product_state":
        return _product_state(double, params)
    if name == "vendor.tensor.mera":
        return _mera(double, params)
    raise LookupError(f"no decomposition into {name}")


def _chain(tensor: torch.Tensor, bonds: list[int]) -> list[torch.Tensor]:
    """The cores (bond, leg, bond) of a tensor with an axis for each leg."""
    import torch

    try:
        from tensorly.decomposition import tensor_train
    except ImportError as error:
        what = tensor_msg("decompositions need the package tensorly, which is not installed")
        fix = tensor_msg("Type pip install tensorly")
        raise CompileError([Diagnostic("CompileError", what, fix, f"{SEE}#conversion")]) from error
    found = tensor_train(tensor.numpy(), rank=list(bonds))
    cores = [torch.from_numpy(core) for core in found.factors]
    # A matrix of a lower rank has smaller bonds; the rest of the core is nothing.
    return [_padded(core, (bonds[place], core.shape[1], bonds[place + 1])) for place, core in enumerate(cores)]


def _padded(core: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    whole = core.new_zeros(shape)
    whole[tuple(slice(0, side) for side in core.shape)] = core
    return whole


def _tensor_train(matrix: torch.Tensor, params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    outs, ins = list(params["out_factors"]), list(params["in_factors"])
    cores = _chain(_sites(matrix, outs, ins), params["bonds"])
    return {
        f"core_{place}": core.reshape(core.shape[0], out, into, core.shape[2])
        for place, (core, out, into) in enumerate(zip(cores, outs, ins, strict=True))
    }


def _product_state(matrix: torch.Tensor, params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    cores = _chain(matrix.reshape(*params["out_factors"], *params["in_factors"]), params["bonds"])
    return {f"core_{place}": core for place, core in enumerate(cores)}


def _sites(matrix: torch.Tensor, outs: list[int], ins: list[int]) -> torch.Tensor:
    """A matrix as a tensor with an axis for each pair of an output leg and an input leg."""
    count = len(outs)
    order = [axis for place in range(count) for axis in (place, count + place)]
    pairs = [out * into for out, into in zip(outs, ins, strict=True)]
    return matrix.reshape(*outs, *ins).permute(order).reshape(pairs)


def _mera(matrix: torch.Tensor, params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tree that singular values give, improved tensor by tensor."""
    import torch

    from eulerstack_tensor.modules.mera import MeraLinear

    module = MeraLinear(None, {**params, "bias": False}).double()
    target = _sites(matrix, list(params["out_factors"]), list(params["in_factors"]))
    with torch.no_grad():
        _plant_tree(module, target)
    # With no bond cut the tree is the matrix.
    norm, overlap = float(target.norm()), 0.0
    for _ in range(SWEEPS):
        before, overlap = overlap, _sweep(module, target)
        if overlap >= norm * (1 - 1e-14) or overlap - before <= ENOUGH * norm:
            break
    return {name: tensor.detach() for name, tensor in module.named_parameters()}


def _plant_tree(module: MeraLinear, target: torch.Tensor) -> None:
    """Isometries onto the largest singular vectors of each pair of sites, from the weight upwards; no disentangling."""
    import torch

    state = target
    isometries, disentanglers = module.tensors()
    for splits, mixes in zip(isometries[::-1], disentanglers[::-1], strict=True):
        for mix in mixes:
            side = math.prod(mix.shape[:2])
            mix.copy_(torch.eye(side, dtype=mix.dtype).reshape(mix.shape))
        for place, split in enumerate(splits):
            # Pairs before this one are one axis already.
            pair = state.movedim((place, place + 1), (0, 1)).flatten(0, 1)
            vectors = torch.linalg.svd(pair.flatten(1), full_matrices=False).U
            chosen = _orthonormal(vectors[:, : split.shape[0]], split.shape[0])
            split.copy_(chosen.T.reshape(split.shape))
            state = torch.tensordot(chosen.T, pair, dims=1).movedim(0, place)
    module.top.copy_(state)


def _orthonormal(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """So many orthonormal columns, the first of them those given."""
    import torch

    if vectors.shape[1] >= count:
        return vectors
    full = torch.linalg.qr(torch.cat((vectors, torch.eye(len(vectors), dtype=vectors.dtype)), 1)).Q
    return torch.cat((vectors, full[:, vectors.shape[1] : count]), 1)


def _sweep(module: MeraLinear, target: torch.Tensor) -> float:
    """Sets each tensor to the best one beside the others; returns the overlap with the target, which is the norm of
    what was found.

    The overlap is linear in every tensor, so its gradient is what the others make of the target: the best isometry is
    the gradient's polar factor, the best top the gradient itself.
    """
    import torch

    from eulerstack_tensor.modules.mera import mera_tensor

    overlap = 0.0
    isometries, disentanglers = module.tensors()
    turns = [(each, 1) for level in isometries for each in level] + [
        (each, 2) for level in disentanglers for each in level
    ]
    for tensor, rows in [*turns, (module.top, 0)]:
        with torch.enable_grad():
            made = mera_tensor(module.top, isometries, disentanglers)
            (gradient,) = torch.autograd.grad((made * target).sum(), tensor)
        with torch.no_grad():
            if rows:
                matrix = gradient.reshape(math.prod(tensor.shape[:rows]), -1)
                left, _, right = torch.linalg.svd(matrix, full_matrices=False)
                tensor.copy_((left @ right).reshape(tensor.shape))
            else:
                tensor.copy_(gradient)
                overlap = float(gradient.norm())
    return overlap
