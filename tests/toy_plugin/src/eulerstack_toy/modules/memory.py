"""The mean of all tokens so far.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  total (batch, d_model) and count (batch, 1), in float32 at least
"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.memory import MemoryModule


class ToyAverage(MemoryModule):
    """Its persistence, its cache slot and what it holds between calls are the base class's business."""

    surprise_name = "toy_average"

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__(params, layer_idx)
        self.scale = params["scale"]
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, _, width = hidden_states.shape
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        empty = torch.zeros(rows, width + 1, dtype=precise, device=hidden_states.device)
        return {"total": empty[:, :-1], "count": empty[:, -1:]}

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, count = state["total"], state["count"]
        means = []
        for time in range(hidden_states.shape[1]):
            if sequence_ids is not None and time > 0:
                fresh = (sequence_ids[:, time] != sequence_ids[:, time - 1]).unsqueeze(-1)
                total = torch.where(fresh, first["total"], total)
                count = torch.where(fresh, first["count"], count)
            kept = valid[:, time, None]
            total = total + hidden_states[:, time].to(total.dtype) * kept
            count = count + kept
            means.append(total / count.clamp(min=1.0))
        read = self.proj(torch.stack(means, dim=1).to(hidden_states.dtype)) * self.scale
        return read, {"total": total, "count": count}

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        kept = valid.unsqueeze(-1)
        before = (state["total"] / state["count"].clamp(min=1.0)).unsqueeze(1)
        distances = ((hidden_states.to(before.dtype) - before) * kept).square().mean(-1)
        after = {
            "total": state["total"] + (hidden_states.to(before.dtype) * kept).sum(1),
            "count": state["count"] + kept.sum(1),
        }
        return after, distances.sum(-1) / valid.sum(-1).clamp(min=1)
