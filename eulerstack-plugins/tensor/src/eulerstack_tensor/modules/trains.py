"""Linear layers whose matrix is a chain of tensors, contracted with the input core by core.

Shapes: hidden_states (…, in) -> (…, out), with out = Π out_factors and in = Π in_factors, the first factor slowest
Source: see declarations/trains.py
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


def chain_norm(cores: list[torch.Tensor]) -> float:
    """The Frobenius norm of what cores (bond, …, bond) contract to, without making it."""
    overlaps = torch.ones(1, 1, dtype=torch.float64)
    for core in cores:
        legs = core.double().flatten(1, -2)
        overlaps = torch.einsum("rs,rlt,slu->tu", overlaps, legs, legs)
    return float(overlaps) ** 0.5


class TensorChain(nn.Module):
    """Cores in a row: `core_0`, `core_1`, …, and perhaps a bias."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.outs, self.ins = tuple(params["out_factors"]), tuple(params["in_factors"])
        self.bonds = tuple(params["bonds"])
        shapes = self.core_shapes()
        for place, shape in enumerate(shapes):
            self.register_parameter(f"core_{place}", nn.Parameter(torch.empty(shape)))
        self.bias = nn.Parameter(torch.empty(params["out_features"])) if params["bias"] else None
        self.parameter_roles = {f"core_{place}": "hidden" for place in range(len(shapes))}

    def core_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each core."""
        raise NotImplementedError

    @property
    def cores(self) -> list[torch.Tensor]:
        """The cores, the first first."""
        return [self.get_parameter(f"core_{place}") for place in range(len(self.parameter_roles))]

    def initialize(self, deviation: float) -> None:
        """Random cores, scaled alike so that the matrix is as large as one whose entries have this deviation."""
        if self.core_0.device.type != "meta":
            drawn = [torch.randn(core.shape) for core in self.cores]
            wanted = deviation * (math.prod(self.outs) * math.prod(self.ins)) ** 0.5
            scale = (wanted / chain_norm(drawn)) ** (1 / len(drawn))
            for core, values in zip(self.cores, drawn, strict=True):
                initialization.copy_(core, (scale * values).to(core.dtype))
        if self.bias is not None:
            initialization.zeros_(self.bias)

    def dense_weight(self) -> torch.Tensor:
        """The matrix, (out, in)."""
        raise NotImplementedError


class TensorTrainLinear(TensorChain):
    """Cores (bond, out leg, in leg, bond)."""

    def core_shapes(self) -> list[tuple[int, ...]]:
        return list(zip(self.bonds[:-1], self.outs, self.ins, self.bonds[1:], strict=True))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        lead = hidden_states.shape[:-1]
        # (tokens, outputs so far, bond, inputs to come)
        state = hidden_states.reshape(-1, 1, 1, hidden_states.shape[-1])
        for core, leg in zip(self.cores, self.ins, strict=True):
            state = torch.einsum("npriq,roit->npotq", state.unflatten(-1, (leg, -1)), core).flatten(1, 2)
        outputs = state.reshape(*lead, -1)
        return outputs if self.bias is None else outputs + self.bias

    def dense_weight(self) -> torch.Tensor:
        # (outputs so far, inputs so far, bond)
        made = self.cores[0].new_ones(1, 1, 1)
        for core in self.cores:
            made = torch.einsum("abr,roit->aobit", made, core).flatten(2, 3).flatten(0, 1)
        return made[..., 0]


class ProductStateLinear(TensorChain):
    """Cores (bond, leg, bond): those of the outputs' legs, then those of the inputs'."""

    def core_shapes(self) -> list[tuple[int, ...]]:
        return list(zip(self.bonds[:-1], (*self.outs, *self.ins), self.bonds[1:], strict=True))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        lead, sides = hidden_states.shape[:-1], len(self.outs)
        # (tokens, inputs to come, bond), from the last leg to the first
        state = hidden_states.reshape(-1, hidden_states.shape[-1], 1)
        for core, leg in zip(self.cores[: sides - 1 : -1], self.ins[::-1], strict=True):
            state = torch.einsum("nqit,rit->nqr", state.unflatten(1, (-1, leg)), core)
        # (tokens, bond, outputs so far)
        state = state.transpose(1, 2)
        for core in self.cores[sides - 1 :: -1]:
            state = torch.einsum("ntq,rot->nroq", state, core).flatten(2, 3)
        outputs = state.reshape(*lead, -1)
        return outputs if self.bias is None else outputs + self.bias

    def dense_weight(self) -> torch.Tensor:
        made = self.cores[0].new_ones(1, 1)
        for core in self.cores:
            made = torch.einsum("ar,rot->aot", made, core).flatten(0, 1)
        return made.reshape(math.prod(self.outs), math.prod(self.ins))
