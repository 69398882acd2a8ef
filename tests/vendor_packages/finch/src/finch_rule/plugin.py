"""The realism rule `finch_name`, whose sentence the catalog of another package, wren-words, translates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, Message
from eulerstack.plugins import Rule, hookimpl


def short_name(ir: Any) -> Iterator[Finding]:
    """A finding for a name of fewer than eight letters."""
    if len(ir.model["name"]) < 8:
        values = (("name", ir.model["name"]),)
        what = Message("the name {name} says little about the model", values, "finch_rule")
        yield Finding("finch_name", what, "model.name")


@hookimpl
def eulerstack_rules() -> list[Rule]:
    """The rule `finch_name`."""
    return [Rule("finch_name", "a model's name has eight letters", short_name)]
