"""A short training run that shows whether a model learns at all, by transformers' Trainer. Needs the extra `train`.

    python -m eulerstack.sanity --preset my_model.yml --data data --steps 50 --plot sanity.svg

    from eulerstack.sanity import check, plot
    report = check(model, datasets.load_from_disk("data"), steps=50)
    plot([report], "sanity.svg")

It trains as the spec's `training_hints` say and keeps nothing of what was learnt: training for good is the business of
whatever trains HuggingFace models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eulerstack.sanity.report import ExpertLoad, Report

__all__ = ["ExpertLoad", "Report", "check", "plot"]


def check(model: Any, dataset: Any, *, name: str = "", steps: int = 50, batch_size: int = 4, seed: int = 0) -> Report:
    """Trains `model` for so many steps and says how that went; its weights change.

    `dataset` has blocks of equal length, as `eulerstack.data.prepare` makes them, of which a step reads `batch_size`.
    Each report of the same model, data and seed on the same machine has the same losses.
    Errors: CompatibilityError for data that doesn't fit the model; ValueError when it is no EulerStack model.
    """
    from eulerstack.sanity.training import train

    return train(model, dataset, name=name, steps=steps, batch_size=batch_size, seed=seed)


def plot(reports: list[Report], path: str | Path) -> None:
    """Draws the losses and gradient norms of several reports side by side; the path's ending is the picture's format.

    Errors: ValueError for an ending that matplotlib doesn't know; OSError.
    """
    from eulerstack.sanity.plotting import draw

    draw(reports, Path(path))
