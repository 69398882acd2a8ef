"""How a hook or a field goes: marked first, still working, named by `eulerstack plugins doctor`; removed later.

The interface's version (`API_VERSION`) grows when something is removed, never when something is added or deprecated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any

from eulerstack.errors import Message, msg

MARK = "deprecated"


@dataclass(frozen=True)
class HookInfo:
    """The version that added a hook; of a deprecated one, since when it is, and the hook that takes its place."""

    since: str
    deprecated: str = ""
    instead: str = ""

    def notice(self, name: str) -> Message:
        """The sentence for a plugin that uses it."""
        return _notice(name, self.deprecated, self.instead)


@dataclass(frozen=True)
class DeprecatedField:
    """The mark of a declaration's field: since when, and the field that takes its place ("" for none).

    Stands in the field's metadata: `citation: str = field(default="", metadata=deprecated_field("1.4", "paper"))`.
    """

    since: str
    instead: str = ""


def deprecated_field(since: str, instead: str = "") -> dict[str, DeprecatedField]:
    """Metadata that marks a dataclass field as deprecated."""
    return {MARK: DeprecatedField(since, instead)}


def modern(items: Iterable[Any]) -> tuple[list[Any], list[Message]]:
    """The declarations with the values of deprecated fields where they belong now, and a sentence for each field used.

    A value that the new field has already is kept.
    """
    found, notices = [], []
    for item in items:
        changes: dict[str, Any] = {}
        for each in fields(item):
            mark: DeprecatedField | None = each.metadata.get(MARK)
            if mark is None or (value := getattr(item, each.name)) == (default := _default(each)):
                continue
            name = f"{type(item).__name__}.{each.name}"
            notices.append(_notice(name, mark.since, mark.instead))
            if mark.instead:
                changes[each.name] = default
                if getattr(item, mark.instead) == _default(_field(item, mark.instead)):
                    changes[mark.instead] = value
        found.append(replace(item, **changes) if changes else item)
    return found, notices


def _field(item: Any, name: str) -> Field[Any]:
    return next(each for each in fields(item) if each.name == name)


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _notice(name: str, since: str, instead: str) -> Message:
    if not instead:
        return msg("{name} is deprecated since {version}", name=name, version=since)
    return msg("{name} is deprecated since {version}; use {instead}", name=name, version=since, instead=instead)
