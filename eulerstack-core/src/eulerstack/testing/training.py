"""Gradients that finite differences confirm, and bfloat16 that is as exact as bfloat16 can be."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch

from eulerstack.testing.models import tokens


def precise_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    shift_labels: torch.Tensor | None = None,
    num_items_in_batch: Any = None,
    **kwargs: Any,
) -> torch.Tensor:
    """transformers' next-token loss, in the precision of the logits."""
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100) if shift_labels is None else shift_labels
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return total / ((targets != -100).sum() if num_items_in_batch is None else num_items_in_batch)


def next_token_loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The model's loss in the precision of its logits; transformers' own is always float32."""
    if hasattr(model.head, "predictors"):
        # What takes no part in computing logits is reached by the training loss.
        model.loss_function = precise_loss
        return model.train()(ids, labels=ids, use_cache=False).loss
    logits = model(ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def check_gradients(model: Any, choosing: Collection[str] = ()) -> None:
    """Every parameter has a gradient, and all of them together are the slope that finite differences find.

    `choosing` are parts of the names of parameters that only choose or watch, and have no gradient from the logits.
    """
    model = model.double()
    ids = tokens(time=9)
    next_token_loss(model, ids).backward()
    parameters = dict(model.named_parameters())
    aside = {key for key in parameters if not set(choosing).isdisjoint(key.split("."))}
    unused = {key for key, parameter in parameters.items() if parameter.grad is None}
    assert unused == aside, f"no gradient reaches {', '.join(sorted(unused - aside)) or 'what only chooses'}"
    # What a choice falls on changes by jumps, not by degrees.
    parameters = {key: parameter for key, parameter in parameters.items() if key not in aside}
    generator = torch.Generator().manual_seed(3)
    directions = {key: torch.randn(p.shape, generator=generator, dtype=p.dtype) for key, p in parameters.items()}
    slope = sum(float((parameters[key].grad * direction).sum()) for key, direction in directions.items())

    def loss_at(step: float) -> float:
        with torch.no_grad():
            for key, direction in directions.items():
                parameters[key].add_(direction, alpha=step)
            loss = float(next_token_loss(model, ids))
            for key, direction in directions.items():
                parameters[key].add_(direction, alpha=-step)
        return loss

    def difference(step: float) -> float:
        return (loss_at(step) - loss_at(-step)) / (2 * step)

    # The error of a central difference is quadratic in its step, and large where a norm divides by little; two steps
    # together cancel it.
    step = 1e-6
    measured = (4 * difference(step / 2) - difference(step)) / 3
    assert slope == pytest.approx(measured, rel=1e-6, abs=1e-6), (
        f"the gradient says {slope:.9g} where the loss moves by {measured:.9g}; is all of it computed in the dtype of "
        "the hidden states, or in float32 if that is more precise?"
    )


def rounds_what_is_handed_on(model: torch.nn.Module) -> torch.nn.Module:
    """The model in float32, but every module of it hands on what bfloat16 can hold."""

    def rounded(given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            return given.bfloat16().float() if given.dtype == torch.float32 else given
        return tuple(map(rounded, given)) if type(given) is tuple else given

    for module in (*model.model.modules(), *model.head.modules()):
        if module is not model.model:
            module.register_forward_hook(lambda module, given, output: rounded(output))
    return model


def check_bfloat16(build: Callable[[], Any], follow: Callable[..., None] | None = None, time: int = 17) -> None:
    """In bfloat16 the logits are about as far off as in float32 that rounds between modules, and the model trains.

    `follow(leader, *followers)` makes routers of the followers choose what the leader's chose: rounding may turn a
    choice over, which no tolerance is meant for.
    """
    ids = tokens(batch=8, time=time)
    exact, half = build(), build().to(torch.bfloat16)
    rounded = rounds_what_is_handed_on(build().to(torch.bfloat16).float())
    if follow is not None:
        follow(exact, half, rounded)
    with torch.no_grad():
        reference = exact(ids).logits
        moved, expected = (
            (model(ids).logits.float() - reference).norm(dim=-1) / reference.norm(dim=-1) for model in (half, rounded)
        )
    assert torch.isfinite(moved).all(), "logits in bfloat16 are not finite"
    # Not the mean: a norm that divides by nearly nothing makes some token arbitrarily steep.
    for share in (0.5, 0.9):
        ours, theirs = float(moved.quantile(share)), float(expected.quantile(share))
        assert ours < 1.6 * theirs, (
            f"in bfloat16 {share:.0%} of the logits are off by up to {ours:.2%}, where rounding between modules makes "
            f"{theirs:.2%}: something is summed up in bfloat16"
        )
    ids = ids[:2, :17]
    optimizer = torch.optim.AdamW(half.train().parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = half(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1, f"12 steps in bfloat16 take the loss from {losses[0]:.3f} to {losses[-1]:.3f}"
