"""A mixture of experts, token by token.

Source: Shazeer et al. 2017, arXiv:1701.06538; DeepSeek-V3, arXiv:2412.19437, equations 12 to 16; hashes: Roller et al.
        2021, arXiv:2106.04426; capacity: GShard, arXiv:2006.16668
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from eulerstack_mixers.reference.ffn import activate

SCORES = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
    "sqrt_softplus": lambda logits: torch.log(1 + torch.exp(logits)) ** 0.5,
}


def unit(token: Tensor, first: list[Tensor], down: Tensor, params: dict[str, Any]) -> Tensor:
    """One unit on one token, (d_model) -> (d_model); `first` is gate and up, or up alone."""
    limit = math.inf if params["gate_limit"] is None else params["gate_limit"]
    inner = activate(params["activation"], (first[0] @ token).clamp(max=limit))
    return down @ (inner if len(first) == 1 else inner * (first[1] @ token).clamp(-limit, limit))


def mixed(number: int) -> int:
    """MurmurHash3's last step on a number below 2^32."""
    number %= 2**32
    number = (number ^ number >> 16) * 0x85EBCA6B % 2**32
    number = (number ^ number >> 13) * 0xC2B2AE35 % 2**32
    return number ^ number >> 16


def hashed(token_id: int, salt: int, n_experts: int, top_k: int) -> list[int]:
    """The experts of one token."""
    start, left = mixed(token_id + mixed(salt)), list(range(n_experts))
    return [left.pop(mixed(start + j) % len(left)) for j in range(top_k)]


def candidates_of(choice: list[float], params: dict[str, Any]) -> list[int]:
    """The experts that a token may choose from, the best first."""
    n_experts, n_groups = params["experts"], params["n_groups"]
    limit = params["balance"]["group_limit"]
    candidates = list(range(n_experts))
    if limit is not None:
        size = n_experts // n_groups
        two_best = [sum(sorted(choice[first : first + size])[-2:]) for first in range(0, n_experts, size)]
        best = sorted(range(n_groups), key=lambda group: -two_best[group])[:limit]
        candidates = [expert for expert in candidates if expert // size in best]
    return sorted(candidates, key=lambda expert: -choice[expert])


def mixture_of_experts(
    hidden_states: Tensor,
    weights: dict[str, Tensor],
    params: dict[str, Any],
    token_ids: Sequence[int] | None = None,
    training: bool = False,
) -> Tensor:
    """One sequence, (time, d_model) -> (time, d_model); `token_ids` where a hash chooses, capacities while training."""
    top_k, routing = params["top_k"], params["routing"]
    capacity = params["capacity_factor"] if training else None
    load = [0] * params["experts"]
    rows = []
    for index, token in enumerate(hidden_states):
        logits = weights["router.weight"] @ token
        choice = SCORES[params["router"]](logits)
        if "router.bias" in weights:
            choice = choice + weights["router.bias"]
        candidates = candidates_of(choice.detach().tolist(), params)
        if token_ids is not None and routing["type"] == "hash":
            fixed = hashed(int(token_ids[index]), routing["hash_salt"], params["experts"], top_k)
            candidates = fixed + [expert for expert in candidates if expert not in fixed]
        chosen = candidates[:top_k]
        taken = [True] * top_k
        if capacity is not None:
            room = math.ceil(Fraction(str(capacity)) * top_k * (index + 1) / params["experts"])
            open_experts = [expert for expert in candidates if load[expert] < room]
            if params["capacity_drop_policy"] == "overflow":
                chosen = open_experts[:top_k]
            taken = [expert in open_experts for expert in chosen]
        shares = SCORES[params["affinity"]](logits)[chosen]
        if params["normalize_top_k"] and chosen:
            shares = shares / shares.sum()
        output = 0 * token
        for expert, share, fits in zip(chosen, shares, taken, strict=False):
            if not fits:
                continue
            load[expert] += 1
            if params["gated"]:
                first = list(weights["experts.gate_up_proj"][expert].chunk(2))
            else:
                first = [weights["experts.up_proj"][expert]]
            down = weights["experts.down_proj"][expert]
            output = output + params["routed_scale"] * share * unit(token, first, down, params)
        if params["shared_experts"]:
            names = ("gate", "up") if params["gated"] else ("up",)
            first = [weights[f"shared.{name}_proj.weight"] for name in names]
            shared = unit(token, first, weights["shared.down_proj.weight"], params)
            if params["shared_gate"]:
                shared = shared * torch.sigmoid(weights["shared.gate.weight"] @ token)
            output = output + shared
        rows.append(output)
    return torch.stack(rows)
