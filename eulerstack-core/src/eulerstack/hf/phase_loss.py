"""The part of the loss that each phase has."""

from typing import Any

import torch
from torch import nn


def phase_weighted_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    phase_ids: torch.Tensor,
    weights: list[float],
    num_items_in_batch: Any = None,
    ignore_index: int = -100,
    shift_labels: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Σ weight · cross-entropy over the labelled tokens, divided by their number, or by `num_items_in_batch`.

    Shapes: logits (batch, time, vocab_size); labels and phase_ids (batch, time), the phase of each label itself, any
    negative number for none, which weighs 1.
    The divisor does not depend on the weights, so that the parts of an accumulated batch add up to the whole.
    """
    if shift_labels is None:
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    phases = nn.functional.pad(phase_ids, (0, 1), value=-1)[..., 1:].clamp(min=-1)
    table = torch.tensor([1.0, *weights], device=logits.device)
    weight = table[phases.to(logits.device) + 1].flatten()
    targets = shift_labels.to(logits.device).flatten()
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, -2), targets, ignore_index=ignore_index, reduction="none"
    )
    number = (targets != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch
    if isinstance(number, torch.Tensor):
        number = number.to(losses.device)
    return (losses * weight).sum() / number
