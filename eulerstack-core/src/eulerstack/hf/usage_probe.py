"""A linear probe that tells from a routed unit's output which unit has made it.

While training, the cross-entropy of its guesses is added to the loss, weighted by `usage_probe_coef`. It trains the
probe, and as its gradient goes on into the outputs, the units too: they learn to do different things. What a unit's
output counts for in the token's own output plays no part in it.

Shapes: outputs (rows, d_model) of units (rows,) -> logits (rows, units)
Cost:   units · (d_model + 1) parameters; computed while training alone
Source: linear probes: Alain & Bengio 2016, arXiv:1610.01644
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName


class UsageProbe(nn.Module):
    """Reads the outputs of one layer's units between `begin` and `finish`."""

    parameter_roles = {"weight": "probe"}

    def __init__(self, width: int, units: int, coefficient: float):
        super().__init__()
        self.coefficient = coefficient
        self.weight = nn.Parameter(torch.empty(units, width))
        self.bias = nn.Parameter(torch.empty(units))
        self.kept: torch.Tensor | None = None
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def initialize(self, initializer_range: float) -> None:
        # It begins without an opinion, whatever the width.
        initialization.zeros_(self.weight)
        initialization.zeros_(self.bias)

    def begin(self, kept: torch.Tensor | None) -> None:
        """`kept` (batch, time) is 0 at padding, whose outputs do not count; None: there is none."""
        self.kept, self.found = None if kept is None else kept.flatten(), []

    def read(
        self, outputs: torch.Tensor, units: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor | None = None
    ) -> None:
        """outputs (rows, d_model), the unit of each row, the index of its token in (batch · time), and 0 for a row that
        does not count; all (rows,)."""
        precise = torch.promote_types(outputs.dtype, torch.float32)
        logits = nn.functional.linear(outputs.to(precise), self.weight.to(precise), self.bias.to(precise))
        losses = nn.functional.cross_entropy(logits, units, reduction="none")
        weights = torch.ones_like(losses) if counts is None else counts.to(losses.dtype)
        if self.kept is not None:
            weights = weights * self.kept[tokens].to(losses.dtype)
        self.found.append(((losses * weights).sum(), weights.sum()))

    def finish(self) -> torch.Tensor | None:
        """What is to be added to the loss: the mean over all rows that count, times the coefficient."""
        found, self.kept, self.found = self.found, None, []
        if not found:
            return None
        total, number = (sum(each) for each in zip(*found, strict=True))
        return self.coefficient * total / number.clamp(min=1.0)


# The probe, by the word of the spec that asks for one.
PROBES: ByName = {
    "usage_probe_coef": UsageProbe,
}


def usage_probe(config: Any, units: int) -> Any:
    """The probe of a layer's units; None where the spec asks for none, or where there is only one unit to guess."""
    coefficient = config.architecture["training_hints"]["differentiation_objectives"]["usage_probe_coef"]
    if not coefficient or units < 2:
        return None
    return PROBES["usage_probe_coef"](config.hidden_size, units, coefficient)
