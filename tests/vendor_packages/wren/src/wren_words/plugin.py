"""A message catalog, and nothing else: the sentences of finch-rule in the other languages."""

from __future__ import annotations

from pathlib import Path

from eulerstack.plugins import Catalog, hookimpl


@hookimpl
def eulerstack_messages() -> list[Catalog]:
    """The catalog of the domain `finch_rule`."""
    return [Catalog("finch_rule", str(Path(__file__).parent / "locale"))]
