"""What is declared is what is built: parameters, those that one token touches, and the bytes of a cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from eulerstack.compiler.cost import ModelCost, count_parameters, model_cost
from eulerstack.ir import normalize_to_ir
from eulerstack.testing.bench import node_of, observed
from eulerstack.testing.claims import DoesNotApply
from eulerstack.testing.example import Example
from eulerstack.testing.models import built, tokens

BATCH = 3
CONTEXTS = (1, 5, 17, 24)


def parameters(example: Example) -> None:
    """The parameters that are declared, and active, are built."""
    spec = example.spec()
    model, ir = built(spec), normalize_to_ir(spec)
    check_parameters(model, ir)
    cost = model_cost(ir)
    primitive = example.primitive
    if cost.active != cost.total or primitive.routes or primitive.routed_units(ir_params(example, ir)):
        check_active(example, cost)


def check_parameters(model: torch.nn.Module, ir: Any) -> None:
    """The model has as many parameters as are declared."""
    built_ones, declared = sum(parameter.numel() for parameter in model.parameters()), count_parameters(ir)
    assert built_ones == declared, f"{built_ones:,} parameters are built, {declared:,} are declared"


def check_active(example: Example, cost: ModelCost) -> None:
    """Parameters that one token leaves alone: whole parameters, and of stacks of matrices whole matrices."""
    seen = observed(example, dtype=torch.float64)
    gradients = torch.autograd.grad(seen.output[:, -1].sum(), list(seen.parameters.values()), allow_unused=True)
    idle = 0
    for parameter, gradient in zip(seen.parameters.values(), gradients, strict=True):
        if gradient is None:
            idle += parameter.numel()
        elif parameter.ndim > 2:
            idle += int((gradient.flatten(1) == 0).all(dim=1).sum()) * math.prod(parameter.shape[1:])
        elif not gradient.any():
            idle += parameter.numel()
    declared = (cost.total - cost.active) / seen.instances
    assert idle == declared, f"one token leaves {idle:,} parameters of it alone, {declared:,.0f} are declared"


def state(example: Example) -> None:
    """A cache holds the bytes that explain prints."""
    if not example.decodes:
        raise DoesNotApply("a model with it keeps nothing while it decodes")
    spec = example.spec()
    model, cost = built(spec), model_cost(normalize_to_ir(spec))
    held = {context: check_state(model, cost, context) for context in CONTEXTS}
    if all(each.state_window is None and each.state_bytes is None for each in slots_of(cost)):
        per_token = (held[24] - held[5]) // (19 * BATCH)
        fixed = held[5] // BATCH - 5 * per_token
        assert (per_token, fixed) == (cost.cache_bytes_per_token, cost.cache_bytes_fixed), (
            f"a cache holds {per_token} bytes a token and {fixed} beside them; explain prints "
            f"{cost.cache_bytes_per_token} and {cost.cache_bytes_fixed}"
        )


def slots_of(cost: ModelCost) -> list[Any]:
    """The prices of everything that has a cache slot."""
    return [slot for layer in cost.layers for slot in layer.slots]


@torch.no_grad()
def check_state(model: Any, cost: ModelCost, context: int) -> int:
    """The cache holds as many bytes after `context` tokens as are declared; returns them."""
    held = cache_bytes(model(tokens(batch=BATCH, time=context), use_cache=True).past_key_values)
    declared = cost.cache_bytes(context, batch=BATCH)
    assert held == declared, (
        f"after {context} tokens a cache of {BATCH} sequences holds {held:,} bytes, {declared:,} are declared"
    )
    return held


def cache_bytes(cache: Any) -> int:
    """The bytes that a cache holds."""
    states = [layer.slots.values() if hasattr(layer, "slots") else (layer.keys, layer.values) for layer in cache.layers]
    return sum(state.nbytes for layer in states for state in layer if state is not None)


def ir_params(example: Example, ir: Any) -> Mapping[str, Any]:
    """The complete parameters of the example's primitive in its IR."""
    return node_of(example, ir).params
