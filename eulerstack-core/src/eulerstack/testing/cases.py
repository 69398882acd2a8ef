"""One line of the table of what every field does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """What happens when `changes` are made to the tiny spec after `given` (which both sides have).

    `needs` is a package without which no model can be built of it.
    """

    effect: str  # one of `eulerstack.testing.effects.EFFECTS`, which says what each takes
    changes: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
