"""A fading sum of what was read. (batch, time, d_model) -> (batch, time, d_model); state: trace (batch, d_model)"""

from typing import Any

import torch
from torch import nn

from eulerstack.hf.memory import MemoryModule


class StorkTrace(MemoryModule):
    """trace ← keep · trace + x, read as W trace."""

    surprise_name = "stork_trace"

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__(params, layer_idx)
        self.keep = params["keep"]
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def first_state(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"trace": torch.zeros_like(hidden_states[:, 0], dtype=torch.float32)}

    def learn_and_read(
        self,
        hidden_states: torch.Tensor,
        state: dict[str, torch.Tensor],
        first: dict[str, torch.Tensor],
        valid: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        known: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        trace, found = state["trace"], []
        for time in range(hidden_states.shape[1]):
            if sequence_ids is not None and time > 0:
                fresh = (sequence_ids[:, time] != sequence_ids[:, time - 1]).unsqueeze(-1)
                trace = torch.where(fresh, first["trace"], trace)
            kept = valid[:, time, None].bool()
            trace = torch.where(kept, self.keep * trace + hidden_states[:, time].float(), trace)
            found.append(trace)
        return self.proj(torch.stack(found, dim=1).to(hidden_states.dtype)), {"trace": trace}

    def step(
        self, hidden_states: torch.Tensor, state: dict[str, torch.Tensor], valid: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        after = self.learn_and_read(hidden_states, state, state, valid, None, False)[1]
        return after, (after["trace"] - state["trace"]).square().mean(-1)
