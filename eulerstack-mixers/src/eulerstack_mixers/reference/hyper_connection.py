"""Hyper-connections of one token sequence, written out stream by stream.

`weights` are those of a residual, by their names in a layer ("mixer_streams.fn"); `mixer`, `ffn` and `norms` as in
`residuals.sequential`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Branch = Callable[[Tensor], Tensor]


def doubly_stochastic(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """One matrix (n, n): e to the power of its entries, its rows and then its columns divided by their sums."""
    n = len(logits)
    matrix = [[entry.exp() for entry in row] for row in logits]
    matrix = [[entry / sum(row) + eps for entry in row] for row in matrix]
    for step in range(iterations):
        if step > 0:
            matrix = [[entry / (sum(row) + eps) for entry in row] for row in matrix]
        sums = [sum(matrix[i][j] for i in range(n)) + eps for j in range(n)]
        matrix = [[matrix[i][j] / sums[j] for j in range(n)] for i in range(n)]
    return torch.stack([torch.stack(row) for row in matrix])


def token_logits(token: Tensor, fn: Tensor, norm_eps: float) -> Tensor:
    """fn times all streams of a token (n, width) in one vector of mean square 1."""
    flat = token.flatten()
    return fn @ (flat / (flat.square().mean() + norm_eps).sqrt())


def token_mixing(logits: Tensor, n: int, params: Mapping[str, Any]) -> Tensor:
    """The matrix (from, to) that mixes the streams of a token."""
    if params["mixing"] == "learned_lowrank":
        return torch.eye(n, dtype=logits.dtype) + torch.outer(logits[:n], logits[n:])
    matrix = logits.view(n, n)
    return (
        doubly_stochastic(matrix, params["sinkhorn_iters"], params["eps"]) if params["mixing"] == "birkhoff" else matrix
    )


def connect(
    streams: Tensor, branch: Branch, weights: Mapping[str, Tensor], params: Mapping[str, Any], norm_eps: float
) -> Tensor:
    """The streams (time, n, width) after one branch, which maps (time, width) to itself."""
    n = params["expand"]
    reads, writes, mixings = [], [], []
    for token in streams:
        logits = token_logits(token, weights["fn"], norm_eps)
        factors = [weights["scale"][0]] * n + [weights["scale"][1]] * n + [weights["scale"][2]] * (len(logits) - 2 * n)
        logits = logits * torch.stack(factors) + weights["base"]
        reads.append(logits[:n].sigmoid() + params["eps"])
        writes.append(2 * logits[n : 2 * n].sigmoid())
        mixings.append(token_mixing(logits[2 * n :], n, params))
    output = branch(torch.stack([read @ token for read, token in zip(reads, streams, strict=True)]))
    return torch.stack(
        [
            torch.stack([write[k] * out + sum(mix[j, k] * token[j] for j in range(n)) for k in range(n)])
            for write, mix, out, token in zip(writes, mixings, output, streams, strict=True)
        ]
    )


def join_streams(streams: Tensor, weights: Mapping[str, Tensor], params: Mapping[str, Any], norm_eps: float) -> Tensor:
    """What becomes of the streams (time, n, width) after the last layer that has them: (time, width)."""
    joined = []
    for token in streams:
        logits = token_logits(token, weights["hc_fn"], norm_eps) * weights["hc_scale"] + weights["hc_base"]
        joined.append((logits.sigmoid() + params["eps"]) @ token)
    return torch.stack(joined)


def hyper_connection(
    streams: Tensor,
    mixer: Branch,
    ffn: Branch | None,
    norms: Mapping[str, Branch],
    position: str,
    weights: Mapping[str, Tensor],
    params: Mapping[str, Any],
    norm_eps: float,
    scaling: float = 1.0,
) -> Tensor:
    """A layer of streams (time, n, width): the mixer's branch, then the feed-forward block's."""
    for name, block in (("mixer", mixer), ("ffn", ffn)):
        if block is None:
            continue

        def branch(states: Tensor, name: str = name, block: Branch = block) -> Tensor:
            states = norms[f"{name}_norm"](states) if position in ("pre", "sandwich") else states
            output = block(states)
            return scaling * (norms[f"{name}_output_norm"](output) if position in ("output", "sandwich") else output)

        own = {key.removeprefix(f"{name}_streams."): value for key, value in weights.items() if key.startswith(name)}
        streams = connect(streams, branch, own, params, norm_eps)
        if position == "post":
            streams = norms[f"{name}_norm"](streams)
    return streams
