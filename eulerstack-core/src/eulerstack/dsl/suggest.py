"""The word that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MANY = 100
"""Problems after which suggestions are no longer looked for, and names beyond which there are too many to compare."""

_separators = re.compile(r"[\s_.-]+")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word most like `word`, None when none is near; spelling of case and separators counts for nothing."""
    candidates = sorted(known)
    if len(word) > MANY or len(candidates) > 5 * MANY:
        return None
    spelled: dict[str, str] = {}
    for candidate in candidates:
        spelled.setdefault(_fold(candidate), candidate)
    matches = difflib.get_close_matches(_fold(word), spelled, n=1, cutoff=cutoff)
    return spelled[matches[0]] if matches else None


def _fold(word: str) -> str:
    return _separators.sub("_", word.lower())
