"""The kit on primitives of this project that use what the example does not: rotary tables, experts, streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from eulerstack.compiler.cost import model_cost
from eulerstack.ir import normalize_to_ir
from eulerstack.testing import Example
from eulerstack.testing.accounting import check_active
from eulerstack.testing.claims import verdict

torch.set_num_threads(1)
Weights = Mapping[str, torch.Tensor]


def naive_attention(
    hidden_states: torch.Tensor, weights: Weights, position_embeddings: Any, n_heads: int, head_dim: int
) -> torch.Tensor:
    """Attention with one key and value head, turned by the tables that the module is given."""
    cos, sin = position_embeddings

    def turned(states: torch.Tensor) -> torch.Tensor:
        first, second = states.chunk(2, dim=-1)
        return states * cos + torch.cat((second, first), -1) * sin

    query, key, value = (hidden_states @ weights[f"{name}_proj.weight"].T for name in "qkv")
    key, heads = turned(key), []
    for head in range(n_heads):
        scores = turned(query[:, head * head_dim : (head + 1) * head_dim]) @ key.T * head_dim**-0.5
        mask = torch.ones_like(scores, dtype=torch.bool).tril()
        heads.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value)
    return torch.cat(heads, -1) @ weights["o_proj.weight"].T


MOE = {"experts": 4, "top_k": 2}
EXAMPLES = {
    "rotary tables": (Example("mixer", "attention", reference=naive_attention), "reference"),
    "several streams": (Example("residual", "hyper_connection", words={"hyper": {"expand": 2}}), "reference"),
    "two layers of a stage": (Example("integrator", "discrete"), "reference"),
    "experts": (Example("ffn", "moe", words=MOE), "parameters"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_claim_holds(name: str) -> None:
    example, claim = EXAMPLES[name]
    found = verdict(example, claim)
    assert found.state == "holds", found.why


@pytest.mark.parametrize("top_k", [1, 3])
def test_experts_that_a_token_touches_are_counted(top_k: int) -> None:
    other = Example("ffn", "moe", words={**MOE, "top_k": top_k})
    with pytest.raises(AssertionError, match="one token leaves"):
        check_active(EXAMPLES["experts"][0], model_cost(normalize_to_ir(other.spec())))
