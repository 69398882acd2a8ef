"""A blend: y = s·first + (1 − s)·mean of the others, with s = sigmoid(logit).

Shapes: n streams of (batch, time, d_model) -> (batch, time, d_model)
Cost:   one parameter
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


class ToyBlend(nn.Module):
    """`streams` are the names of the streams, `slot` the cache slot of a merge that declares one."""

    def __init__(self, config: Any, params: dict[str, Any], streams: list[str], slot: int | None = None):
        super().__init__()
        self.start = math.log(params["share"] / (1 - params["share"]))
        self.logit = nn.Parameter(torch.empty(1))

    def initialize(self, initializer_range: float) -> None:
        """The share begins as the spec says."""
        initialization.constant_(self.logit, self.start)

    def forward(self, outputs: list[torch.Tensor], **kwargs: Any) -> torch.Tensor:
        share = self.logit.sigmoid()
        return share * outputs[0] + (1 - share) * torch.stack(outputs[1:]).mean(0)
