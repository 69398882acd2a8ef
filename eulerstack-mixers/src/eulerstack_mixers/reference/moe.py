"""A mixture of experts, token by token.

Source: Shazeer et al. 2017, arXiv:1701.06538; DeepSeek-V3, arXiv:2412.19437, equations 12 to 16
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.ffn import activate

SCORES = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
    "sqrt_softplus": lambda logits: torch.log(1 + torch.exp(logits)) ** 0.5,
}


def gated(token: Tensor, gate: Tensor, up: Tensor, down: Tensor, activation: str) -> Tensor:
    """One gated unit on one token, (d_model) -> (d_model)."""
    return down @ (activate(activation, gate @ token) * (up @ token))


def mixture_of_experts(hidden_states: Tensor, weights: dict[str, Tensor], params: dict[str, Any]) -> Tensor:
    """(time, d_model) -> (time, d_model)."""
    n_experts, n_groups = params["experts"], params["n_groups"]
    limit = params["balance"]["group_limit"]
    rows = []
    for token in hidden_states:
        logits = weights["router.weight"] @ token
        choice = SCORES[params["router"]](logits)
        if "router.bias" in weights:
            choice = choice + weights["router.bias"]
        candidates = list(range(n_experts))
        if limit is not None:
            size = n_experts // n_groups
            values = choice.detach().tolist()
            two_best = [sum(sorted(values[first : first + size])[-2:]) for first in range(0, n_experts, size)]
            best = sorted(range(n_groups), key=lambda group: -two_best[group])[:limit]
            candidates = [expert for expert in candidates if expert // size in best]
        chosen = sorted(candidates, key=lambda expert: -float(choice[expert].detach()))[: params["top_k"]]
        shares = SCORES[params["affinity"]](logits)[chosen]
        if params["normalize_top_k"]:
            shares = shares / shares.sum()
        output = 0 * token
        for expert, share in zip(chosen, shares, strict=True):
            gate, up = weights["experts.gate_up_proj"][expert].chunk(2)
            down = weights["experts.down_proj"][expert]
            output = output + params["routed_scale"] * share * gated(token, gate, up, down, params["activation"])
        if params["shared_experts"]:
            gate, up, down = (weights[f"shared.{name}_proj.weight"] for name in ("gate", "up", "down"))
            output = output + gated(token, gate, up, down, params["activation"])
        rows.append(output)
    return torch.stack(rows)
