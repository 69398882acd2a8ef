"""A linear layer whose matrix is a binary MERA, made anew in every pass.

Shapes: hidden_states (…, in) -> (…, out); a site has an output leg and an input leg; isometry (bond, site, site),
        disentangler (site, site, site, site): from the last two to the first two
Source: see declarations/mera.py
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


def mera_tensor(
    top: torch.Tensor, isometries: list[list[torch.Tensor]], disentanglers: list[list[torch.Tensor]]
) -> torch.Tensor:
    """The tensor with an axis for each site, from lists by level, the highest level first."""
    tensor = top
    for splits, mixes in zip(isometries, disentanglers, strict=True):
        for place, isometry in enumerate(splits):
            # The axis becomes two; those before it have become two already.
            tensor = torch.tensordot(tensor, isometry, dims=([2 * place], [0]))
            tensor = tensor.movedim((-2, -1), (2 * place, 2 * place + 1))
        for place, mix in enumerate(mixes):
            axes = (2 * place + 1, 2 * place + 2)
            tensor = torch.tensordot(tensor, mix, dims=(axes, (2, 3))).movedim((-2, -1), axes)
    return tensor


def sites_to_matrix(tensor: torch.Tensor, outs: tuple[int, ...], ins: tuple[int, ...]) -> torch.Tensor:
    """A tensor of sites as a matrix (out, in)."""
    count = len(outs)
    legs = tensor.reshape([leg for pair in zip(outs, ins, strict=True) for leg in pair])
    order = [*range(0, 2 * count, 2), *range(1, 2 * count, 2)]
    return legs.permute(order).reshape(math.prod(outs), math.prod(ins))


class MeraLinear(nn.Module):
    """Tensors `top`, `isometry_<level>_<place>` and `disentangler_<level>_<place>`, level 0 next to the weight.

    They begin as isometries and unitaries; training does not keep them so.
    """

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.outs, self.ins = tuple(params["out_factors"]), tuple(params["in_factors"])
        levels = params["levels"]
        self.top = nn.Parameter(torch.empty(tuple(levels[-1])))
        self.parameter_roles = {"top": "hidden"}
        # The names of the tensors by level, the highest level first.
        self.names: list[tuple[list[str], list[str]]] = []
        for level in reversed(range(len(levels) - 1)):
            below, above = levels[level], levels[level + 1]
            shapes = {
                f"isometry_{level}_{place}": (above[place], below[2 * place], below[2 * place + 1])
                for place in range(len(above))
            }
            pairs = [(below[place], below[place + 1]) for place in range(1, len(below) - 1, 2)]
            mixes = {f"disentangler_{level}_{place}": (*pair, *pair) for place, pair in enumerate(pairs)}
            for name, shape in {**shapes, **mixes}.items():
                self.register_parameter(name, nn.Parameter(torch.empty(shape)))
                self.parameter_roles[name] = "hidden"
            self.names.append((list(shapes), list(mixes)))
        self.bias = nn.Parameter(torch.empty(params["out_features"])) if params["bias"] else None

    def tensors(self) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
        """Isometries and disentanglers by level, the highest level first."""
        found = [[[self.get_parameter(name) for name in names] for names in level] for level in self.names]
        return [level[0] for level in found], [level[1] for level in found]

    def initialize(self, deviation: float) -> None:
        """Isometries and unitaries at random, which keep the norm, and a top with the norm of a matrix whose entries
        have this deviation."""
        whole = math.prod(self.outs) * math.prod(self.ins)
        if self.top.device.type != "meta":
            drawn = torch.randn(self.top.shape)
            initialization.copy_(self.top, (drawn * (deviation * whole**0.5 / drawn.norm())).to(self.top.dtype))
        for isometries, disentanglers in zip(*self.tensors(), strict=True):
            for tensor, rows in [*((each, 1) for each in isometries), *((each, 2) for each in disentanglers)]:
                if tensor.device.type != "meta":
                    # Decompositions want float32.
                    matrix = torch.empty(math.prod(tensor.shape[:rows]), math.prod(tensor.shape[rows:]))
                    drawn = nn.init.orthogonal_(matrix).reshape(tensor.shape)
                    initialization.copy_(tensor, drawn.to(tensor.dtype))
        if self.bias is not None:
            initialization.zeros_(self.bias)

    def dense_weight(self) -> torch.Tensor:
        """The matrix, (out, in)."""
        return sites_to_matrix(mera_tensor(self.top, *self.tensors()), self.outs, self.ins)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden_states, self.dense_weight(), self.bias)
