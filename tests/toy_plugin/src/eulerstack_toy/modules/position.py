"""Fixed waves of falling frequency, added to the embeddings.

Shapes: position_ids (batch, time) -> (batch or 1, time, d_model)
Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5
"""

import math
from typing import Any

import torch
from torch import nn


class ToyWaves(nn.Module):
    """The first half of the channels are sines, the second cosines."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.half = config.hidden_size // 2
        self.base = params["base"]

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(self.half, device=position_ids.device, dtype=torch.float32)
        angles = position_ids.unsqueeze(-1).float() * torch.exp(steps * (-math.log(self.base) / self.half))
        return torch.cat((angles.sin(), angles.cos()), dim=-1)
