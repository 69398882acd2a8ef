"""What a short training run has shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# By how many deviations of its noise the loss must have fallen.
SURE = 3.0


@dataclass(frozen=True)
class ExpertLoad:
    """How evenly a router gave tokens to its experts, over the second half of the run.

    `busiest` is the largest expert's share over an even one, 1 at best; `idle` are the numbers of the experts that were
    given nothing.
    """

    module: str
    experts: int
    busiest: float
    idle: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """One run. Losses, of all that the model is trained on, and gradient norms before clipping have an entry a step.

    `uniform_loss` is that of guessing all tokens alike; `dead_parameters` are those that no step gave a gradient.
    `tokens_per_second` is that of the median step, the first left out.
    """

    name: str
    parameters: int
    device: str
    batch_size: int
    block_tokens: int
    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    uniform_loss: float
    dead_parameters: tuple[str, ...]
    experts: tuple[ExpertLoad, ...]
    tokens_per_second: float

    @property
    def first_loss(self) -> float:
        """The mean loss of the first tenth of all steps."""
        return statistics.fmean(self.losses[: tenth(self.losses)])

    @property
    def last_loss(self) -> float:
        """The mean loss of the last tenth of all steps."""
        return statistics.fmean(self.losses[-tenth(self.losses) :])

    @property
    def is_finite(self) -> bool:
        """Whether every loss and every gradient was a number."""
        return all(map(math.isfinite, (*self.losses, *self.gradient_norms)))

    @property
    def falls(self) -> bool:
        """Whether the loss has fallen, by more than its noise explains."""
        return self.is_finite and falls(self.losses)

    def as_dict(self) -> dict[str, Any]:
        """Everything for JSON; what is no number is null."""
        return {
            "name": self.name,
            "params": self.parameters,
            "device": self.device,
            "steps": len(self.losses),
            "batch_size": self.batch_size,
            "block_tokens": self.block_tokens,
            "finite": self.is_finite,
            "falls": self.falls,
            "uniform_loss": self.uniform_loss,
            "first_loss": finite(self.first_loss),
            "last_loss": finite(self.last_loss),
            "losses": [finite(loss) for loss in self.losses],
            "gradient_norms": [finite(norm) for norm in self.gradient_norms],
            "dead_parameters": list(self.dead_parameters),
            "experts": [
                {"module": load.module, "experts": load.experts, "busiest": load.busiest, "idle": list(load.idle)}
                for load in self.experts
            ],
            "tokens_per_second": self.tokens_per_second,
        }


def finite(number: float) -> float | None:
    """The number, or None for one that JSON can't write."""
    return number if math.isfinite(number) else None


def tenth(losses: Sequence[float]) -> int:
    """A tenth of so many steps, one at least."""
    return max(1, len(losses) // 10)


def falls(losses: Sequence[float]) -> bool:
    """Whether the mean of the last tenth lies below that of the first by `SURE` deviations of such a difference.

    The deviation of one loss is taken from the differences of neighbours, which a trend hardly changes (von Neumann's
    estimator). Fewer than three losses show nothing.
    """
    if len(losses) < 3:
        return False
    count = tenth(losses)
    differences = [later - earlier for earlier, later in zip(losses, losses[1:], strict=False)]
    # Around their mean, which is the trend.
    deviation = statistics.pstdev(differences) / math.sqrt(2)
    fallen = statistics.fmean(losses[:count]) - statistics.fmean(losses[-count:])
    return fallen > SURE * deviation * math.sqrt(2 / count)
