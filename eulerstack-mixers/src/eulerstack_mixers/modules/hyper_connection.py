"""Hyper-connections: n residual streams that branches read, write to and mix.

For the streams X (n, d_model) of a token, x̂ all of them in one vector, normalised without weights, and
m = scale ⊙ (fn x̂) + base, cut into three parts:

    read   σ(m_read) + eps        u = Σ_j read_j X_j             the branch's input
    write  2 σ(m_write)
    mix    from m_mix             X_k ← write_k · branch(u) + Σ_j mix_jk X_j

mix is doubly stochastic for `birkhoff`: softmax over rows, plus eps, then columns and rows divided by their sums in
turn, columns first and last; m_mix itself for `unconstrained`; 1 + a bᵀ for `learned_lowrank`, m_mix holding a and b.
Weights are computed in float32 at least. Where streams end, they are joined by weights σ(·) + eps of their own.

Before training a branch reads the mean of the streams, writes 1 to each, and mixes them into equal ones if they were
equal, so that a model begins near the plain residual.

Shapes: (batch, time, n, d_model) -> (batch, time, n, d_model)
Cost:   n·d_model·r + r + 3 parameters a branch, r = n² + 2n (learned_lowrank: 4n); n²·d_model + n + 1 where streams end
Source: Zhu et al. 2024, arXiv:2409.19606; birkhoff: Xie et al. 2025, mHC, arXiv:2512.24880, and DeepSeek-V4, whose
        names and order of steps these are
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName
from eulerstack_mixers.modules.residuals import Branch, ResidualBase

# The factor with which the computed part of the weights joins the constant part before training.
INITIAL_SCALE = 0.01
# The logits of the diagonal of birkhoff's matrix before training: streams stay nearly apart.
INITIAL_DIAGONAL = 4.0


def sinkhorn(logits: torch.Tensor, iterations: int, eps: float) -> torch.Tensor:
    """Doubly stochastic matrices, (…, n, n), from any."""
    matrix = torch.softmax(logits, dim=-1) + eps
    matrix = matrix / (matrix.sum(dim=-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        matrix = matrix / (matrix.sum(dim=-1, keepdim=True) + eps)
        matrix = matrix / (matrix.sum(dim=-2, keepdim=True) + eps)
    return matrix


class BirkhoffMix(nn.Module):
    """Streams mixed by a doubly stochastic matrix."""

    def __init__(self, params: dict[str, Any]):
        super().__init__()
        self.n, self.iterations, self.eps = params["expand"], params["sinkhorn_iters"], params["eps"]
        self.weights = self.n**2

    def start(self) -> torch.Tensor:
        """The constant part of the weights before training."""
        return (INITIAL_DIAGONAL * torch.eye(self.n)).flatten()

    def forward(self, weights: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
        """weights (batch, time, n²), streams (batch, time, n, d_model) -> mixed streams."""
        matrix = sinkhorn(weights.unflatten(-1, (self.n, self.n)), self.iterations, self.eps)
        return torch.matmul(matrix.to(streams.dtype).transpose(-1, -2), streams)


class UnconstrainedMix(nn.Module):
    """Streams mixed by any matrix."""

    def __init__(self, params: dict[str, Any]):
        super().__init__()
        self.n = params["expand"]
        self.weights = self.n**2

    def start(self) -> torch.Tensor:
        """The constant part of the weights before training: the identity."""
        return torch.eye(self.n).flatten()

    def forward(self, weights: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
        """weights (batch, time, n²), streams (batch, time, n, d_model) -> mixed streams."""
        matrix = weights.unflatten(-1, (self.n, self.n))
        return torch.matmul(matrix.to(streams.dtype).transpose(-1, -2), streams)


class LowRankMix(nn.Module):
    """Streams mixed by 1 + a bᵀ: each is given a part b_k of what Σ_j a_j X_j says."""

    def __init__(self, params: dict[str, Any]):
        super().__init__()
        self.n = params["expand"]
        self.weights = 2 * self.n

    def start(self) -> torch.Tensor:
        """The constant part of the weights before training: a reads the mean, b is 0."""
        return torch.cat((torch.full((self.n,), 1 / self.n), torch.zeros(self.n)))

    def forward(self, weights: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
        """weights (batch, time, 2n), streams (batch, time, n, d_model) -> mixed streams."""
        read, write = weights.to(streams.dtype).chunk(2, dim=-1)
        common = torch.matmul(read.unsqueeze(-2), streams)
        return streams + write.unsqueeze(-1) * common


# How streams are mixed, by the word of the spec.
MIXINGS: ByName = {
    "birkhoff": BirkhoffMix,
    "unconstrained": UnconstrainedMix,
    "learned_lowrank": LowRankMix,
}


def stream_logits(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    """fn x̂, in float32 at least: (batch, time, n, d_model) -> (batch, time, rows of fn)."""
    precise = torch.promote_types(streams.dtype, torch.float32)
    flat = streams.flatten(-2).to(precise)
    flat = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + norm_eps)
    return nn.functional.linear(flat, fn.to(precise))


def read_streams(streams: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum of the streams, (batch, time, d_model), for weights (batch, time, n)."""
    return (weights.unsqueeze(-1) * streams).sum(dim=-2).to(streams.dtype)


class StreamConnection(nn.Module):
    """The weights by which one branch reads, writes and mixes the streams."""

    # Kept in float32 where the policy says so: their inputs grow with the model and their outputs don't; no decay.
    parameter_roles = {"fn": "router", "base": "norm", "scale": "norm"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.n, self.eps = params["expand"], params["eps"]
        self.norm_eps = config.architecture["model"]["norm_eps"]
        self.mix = MIXINGS[params["mixing"]](params)
        rows = 2 * self.n + self.mix.weights
        self.fn = nn.Parameter(torch.empty(rows, self.n * config.hidden_size))
        self.base = nn.Parameter(torch.empty(rows))
        self.scale = nn.Parameter(torch.empty(3))

    def initialize(self, initializer_range: float) -> None:
        """Near the plain residual, with equal parts for all streams."""
        initialization.normal_(self.fn, mean=0.0, std=initializer_range)
        start = torch.cat((torch.full((self.n,), -math.log(self.n - 1)), torch.zeros(self.n), self.mix.start()))
        initialization.copy_(self.base, start.to(self.base))
        initialization.constant_(self.scale, INITIAL_SCALE)

    def forward(self, streams: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the branch reads (batch, time, d_model), the weights by which it writes (batch, time, n), the streams
        mixed."""
        logits = stream_logits(streams, self.fn, self.norm_eps)
        sizes = (self.n, self.n, self.mix.weights)
        scales = self.scale.to(logits.dtype).unbind()
        bases = self.base.to(logits.dtype).split(sizes)
        read, write, mix = (
            part * scale + base for part, scale, base in zip(logits.split(sizes, -1), scales, bases, strict=True)
        )
        branch_input = read_streams(streams, torch.sigmoid(read) + self.eps)
        return branch_input, 2 * torch.sigmoid(write), self.mix(mix, streams)


class StreamEnds(nn.Module):
    """How a run of layers gets its streams, and what becomes of them after it."""

    parameter_roles = {"hc_fn": "router", "hc_base": "norm", "hc_scale": "norm"}

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.n, self.eps = params["expand"], params["eps"]
        self.norm_eps = config.architecture["model"]["norm_eps"]
        self.hc_fn = nn.Parameter(torch.empty(self.n, self.n * config.hidden_size))
        self.hc_base = nn.Parameter(torch.empty(self.n))
        self.hc_scale = nn.Parameter(torch.empty(1))

    def initialize(self, initializer_range: float) -> None:
        """Near the mean of the streams."""
        initialization.normal_(self.hc_fn, mean=0.0, std=initializer_range)
        initialization.constant_(self.hc_base, -math.log(self.n - 1))
        initialization.constant_(self.hc_scale, INITIAL_SCALE)

    def enter(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """n equal streams, (batch, time, n, d_model)."""
        return hidden_states.unsqueeze(-2).expand(*hidden_states.shape[:-1], self.n, -1).contiguous()

    def leave(self, streams: torch.Tensor) -> torch.Tensor:
        """The streams joined, (batch, time, d_model)."""
        logits = stream_logits(streams, self.hc_fn, self.norm_eps)
        weights = logits * self.hc_scale.to(logits.dtype) + self.hc_base.to(logits.dtype)
        return read_streams(streams, torch.sigmoid(weights) + self.eps)


class HyperConnectionResidual(ResidualBase):
    """Each branch, the mixer's first, reads the streams and writes to them; with one stream the plain residual."""

    stream_ends = StreamEnds

    def __init__(self, config: Any, params: dict[str, Any], norm_position: str, has_ffn: bool):
        super().__init__(config, params, norm_position, has_ffn)
        several = params["expand"] > 1
        self.mixer_streams = StreamConnection(config, params) if several else None
        self.ffn_streams = StreamConnection(config, params) if several and has_ffn else None

    def forward(self, layer: Any, hidden_states: torch.Tensor, mixer: Branch) -> torch.Tensor:
        hidden_states = self.join(layer, hidden_states, "mixer", mixer, self.mixer_streams)
        if layer.ffn is None:
            return hidden_states
        return self.join(layer, hidden_states, "ffn", layer.ffn, self.ffn_streams)

    def join(
        self, layer: Any, streams: torch.Tensor, name: str, branch: Branch, connection: StreamConnection | None
    ) -> torch.Tensor:
        """The streams after one branch; a norm after the sum normalises each by itself."""
        norm: Any = getattr(layer, f"{name}_norm", None)
        output_norm: Any = getattr(layer, f"{name}_output_norm", None)
        branch_input, write, mixed = (streams, None, streams) if connection is None else connection(streams)
        output = branch(norm(branch_input) if self.position in ("pre", "sandwich") else branch_input)
        if output_norm is not None:
            output = output_norm(output)
        output = self.scaled(output)
        if write is not None:
            output = write.to(output.dtype).unsqueeze(-1) * output.unsqueeze(-2)
        streams = mixed + output
        return norm(streams) if self.position == "post" else streams
