"""What the other primitives of this package compute, one sequence and one token at a time."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Branch = Callable[[Tensor], Tensor]


def naive_maxout(hidden_states: Tensor, weights: Weights, pieces: int) -> Tensor:
    """down(the largest of the pieces of up(x)), channel by channel."""
    outputs = []
    for token in hidden_states:
        maps = (weights["up_proj.weight"] @ token).chunk(pieces)
        largest = torch.stack([max(channel) for channel in zip(*maps, strict=True)])
        outputs.append(weights["down_proj.weight"] @ largest)
    return torch.stack(outputs)


def naive_power_norm(hidden_states: Tensor, weights: Weights, p: float, eps: float) -> Tensor:
    """x over the p-th root of its mean p-th power, times the weight."""
    sizes = [(sum(abs(channel) ** p for channel in token) / len(token) + eps) ** (1 / p) for token in hidden_states]
    return torch.stack([token / size * weights["weight"] for token, size in zip(hidden_states, sizes, strict=True)])


def naive_waves(positions: Sequence[int], base: float, d_model: int) -> Tensor:
    """Sines, then cosines, of position / base^(2i / d_model)."""
    angles = [[position / base ** (2 * i / d_model) for i in range(d_model // 2)] for position in positions]
    return torch.tensor([[*map(math.sin, row), *map(math.cos, row)] for row in angles], dtype=torch.float64)


def naive_gated(
    hidden_states: Tensor,
    mixer: Branch,
    ffn: Branch | None,
    norms: Mapping[str, Branch],
    position: str,
    weights: Weights,
    scaling: float,
) -> Tensor:
    """One stream: each branch is added through its factors."""
    for name, branch in (("mixer", mixer), ("ffn", ffn)):
        if branch is None:
            continue
        norm, output_norm = norms.get(f"{name}_norm"), norms.get(f"{name}_output_norm")
        output = branch(hidden_states if norm is None or position == "post" else norm(hidden_states))
        output = output if output_norm is None else output_norm(output)
        hidden_states = hidden_states + scaling * weights[f"{name}_factor"] * output
        hidden_states = norm(hidden_states) if norm is not None and position == "post" else hidden_states
    return hidden_states


def naive_average(hidden_states: Tensor, weights: Weights, scale: float) -> Tensor:
    """The mean of the tokens so far, through the matrix."""
    means = [sum(hidden_states[: count + 1]) / (count + 1) for count in range(len(hidden_states))]
    return torch.stack([scale * (weights["proj.weight"] @ mean) for mean in means])


def naive_low_rank(hidden_states: Tensor, weights: Weights, rank: int | None) -> Tensor:
    """up(down(x)), or the rows of lm_head."""
    if rank is None:
        return torch.stack([weights["lm_head.weight"] @ token for token in hidden_states])
    return torch.stack([weights["up_proj.weight"] @ (weights["down_proj.weight"] @ token) for token in hidden_states])


def naive_relax(hidden_states: Tensor, layers: Sequence[Branch], steps: int, weights: Weights) -> Tensor:
    """A part of the way to what the layer says, again and again."""
    (layer,), rate = layers, weights["rate"]
    for _ in range(steps):
        hidden_states = (1 - rate) * hidden_states + rate * layer(hidden_states)
    return hidden_states


def naive_blend(streams: Tensor, weights: Weights) -> Tensor:
    """A share of the first stream, and the rest shared among the others."""
    share = 1 / (1 + torch.exp(-weights["logit"]))
    return share * streams[0] + (1 - share) * sum(streams[1:]) / (len(streams) - 1)


def naive_blocks(hidden_states: Tensor, weights: Weights, blocks: int) -> Tensor:
    """Each block of the inputs through its own matrix."""
    outputs = []
    for token in hidden_states:
        parts = zip(weights["weight"], token.chunk(blocks), strict=True)
        output = torch.cat([matrix @ part for matrix, part in parts])
        outputs.append(output + weights["bias"] if "bias" in weights else output)
    return torch.stack(outputs)
