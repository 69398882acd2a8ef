"""Which reserved keys the plugins' handlers answer for."""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNFINISHED = re.compile(r"(?:^|\.)(?:experimental|future|vendor\.[^.]+)\.$")


def claimed_key(path: str, claimed: Iterable[str]) -> str | None:
    """Which of the keys in `claimed` stands at a dotted path."""
    for key in claimed:
        before = path.removesuffix(key)
        # experimental.vendor.acme.x is a key of its own, not vendor.acme.x under a mapping called experimental.
        if before != path and (not before or (before.endswith(".") and not _UNFINISHED.search(before))):
            return key
    return None
