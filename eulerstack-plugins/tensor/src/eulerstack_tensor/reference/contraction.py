"""Tensor networks as matrices, one entry after another, straight from their definitions.

Shapes: out legs and in legs as lists of factors, the first slowest -> a matrix (out, in)
"""

import itertools
import math

import torch


def _indices(factors: list[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(factor) for factor in factors)))


def tensor_train(cores: list[torch.Tensor]) -> torch.Tensor:
    """W[o, i] = G_1[o_1, i_1] ··· G_n[o_n, i_n], from cores (bond, out, in, bond)."""
    outs, ins = [core.shape[1] for core in cores], [core.shape[2] for core in cores]
    rows = []
    for out in _indices(outs):
        row = []
        for into in _indices(ins):
            product = torch.eye(1, dtype=cores[0].dtype)
            for core, one, other in zip(cores, out, into, strict=True):
                product = product @ core[:, one, other]
            row.append(product[0, 0])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def product_state(cores: list[torch.Tensor], sides: int) -> torch.Tensor:
    """W[o, i] = A_1[o_1] ··· B_n[i_n], from cores (bond, leg, bond), of which the first `sides` are the outputs'."""
    legs = [core.shape[1] for core in cores]
    entries = []
    for index in _indices(legs):
        product = torch.eye(1, dtype=cores[0].dtype)
        for core, one in zip(cores, index, strict=True):
            product = product @ core[:, one]
        entries.append(product[0, 0])
    return torch.stack(entries).reshape(math.prod(legs[:sides]), -1)


def mera(
    top: torch.Tensor,
    isometries: list[list[torch.Tensor]],
    disentanglers: list[list[torch.Tensor]],
    outs: list[int],
    ins: list[int],
) -> torch.Tensor:
    """W from Kronecker products: every level is one matrix from the sites above to the sites below.

    Isometries (bond, site, site) and disentanglers (site, site, site, site) by level, the highest level first.
    """
    state = top.reshape(-1)
    for splits, mixes in zip(isometries, disentanglers, strict=True):
        widen = torch.eye(1, dtype=top.dtype)
        for split in splits:
            widen = torch.kron(widen, split.reshape(split.shape[0], -1).T)
        mixed = torch.eye(splits[0].shape[1], dtype=top.dtype)
        for mix in mixes:
            side = mix.shape[0] * mix.shape[1]
            mixed = torch.kron(mixed, mix.reshape(side, side))
        mixed = torch.kron(mixed, torch.eye(splits[-1].shape[2], dtype=top.dtype))
        state = mixed @ widen @ state
    matrix = torch.empty(math.prod(outs), math.prod(ins), dtype=top.dtype)
    entries = {}
    sites = [range(out * into) for out, into in zip(outs, ins, strict=True)]
    for position, pairs in enumerate(itertools.product(*sites)):
        row = column = 0
        for pair, out, into in zip(pairs, outs, ins, strict=True):
            row, column = row * out + pair // into, column * into + pair % into
        entries[row, column] = position
    order = [[entries[row, column] for column in range(matrix.shape[1])] for row in range(matrix.shape[0])]
    return state[torch.tensor(order)]
