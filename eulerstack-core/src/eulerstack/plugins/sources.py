"""Where plugins come from: installed entry points, the core's own modules, and objects handed over in tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from eulerstack.errors import Message

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "eulerstack"
OWN_PACKAGES = frozenset(
    {
        "eulerstack",
        "eulerstack-core",
        "eulerstack-dev",
        "eulerstack-mixers",
        "eulerstack-ode",
        "eulerstack-titans",
        "eulerstack-ttt",
    }
)
DISABLE_VARIABLE = "EULERSTACK_DISABLE_PLUGINS"
STRICT_VARIABLE = "EULERSTACK_STRICT_PLUGINS"

State = Literal["ok", "broken", "conflicting", "disabled"]


@dataclass(frozen=True)
class PluginSource:
    """A plugin that is installed but not loaded yet.

    `package` is the distribution's normalised name; `load` imports and returns the plugin object, and may raise
    anything; `target` names what is loaded ("package.module"), so that one module registered twice is noticed.
    """

    name: str
    package: str
    version: str
    load: Callable[[], object]
    target: str = ""

    @property
    def own(self) -> bool:
        """Whether it belongs to this project, whose names need no `vendor.` prefix."""
        return self.package in OWN_PACKAGES

    @property
    def identity(self) -> str:
        """A name that no other plugin has: "package:name"."""
        return f"{self.package}:{self.name}"


@dataclass
class PluginRecord:
    """What became of one installed plugin.

    `primitives` lists (kind, name) of what it provides, or would provide if it were not set aside; it is empty for a
    plugin that failed before it could say. `error` is a translatable sentence, `traceback` the text of the exception.
    """

    name: str
    package: str
    version: str
    state: State = "ok"
    error: Message | None = None
    traceback: str = ""
    primitives: tuple[tuple[str, str], ...] = ()
    api_version: object = None
    own: bool = field(default=False, repr=False)


def normalised(package: str) -> str:
    """The distribution's name as package indexes compare it: lower case, runs of `-_.` as one hyphen."""
    return re.sub(r"[-_.]+", "-", package).lower()


def installed_sources() -> list[PluginSource]:
    """The entry points of the group `eulerstack`, in an order that does not depend on the installation."""
    found = []
    for point in _entry_points():
        name, version = _distribution(point)
        found.append(PluginSource(point.name, normalised(name), version, point.load, point.value))
    return sorted(found, key=lambda source: (source.package, source.name, source.target))


def _entry_points() -> list[EntryPoint]:
    """All entry points of our group; an installed package whose files are damaged is passed over."""
    from importlib.metadata import distributions, entry_points

    try:
        return list(entry_points(group=GROUP))
    # One damaged file among all installed packages spoils the whole call; then they are read one by one.
    except Exception:
        points = []
        for distribution in distributions():
            with suppress(Exception):
                points += [point for point in distribution.entry_points if point.group == GROUP]
        return points


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that brings an entry point, as far as its files tell."""
    metadata = point.dist.metadata if point.dist else None
    name = metadata["Name"] if metadata else None
    version = metadata["Version"] if metadata else None
    return name or f"unknown-{point.value.split(':')[0].split('.')[0]}", version or "0"


def core_sources() -> list[PluginSource]:
    """The core's own plugin, which provides realism rules and the HuggingFace target."""
    from eulerstack import __version__

    # Loaded by its name like every other plugin: its rules price models, and so stand above the layers they judge.
    target = "eulerstack.core_plugin"
    return [PluginSource("core", "eulerstack-core", __version__, lambda: import_module(target), target)]


def as_source(plugin: object) -> PluginSource:
    """A source for a plugin object; its package is the top-level package that defines the object or its class."""
    if isinstance(plugin, PluginSource):
        return plugin
    module: str = getattr(plugin, "__name__", "") or type(plugin).__module__
    name: str = getattr(plugin, "__name__", "") or type(plugin).__name__
    version: str = getattr(plugin, "__version__", "0")
    return PluginSource(name, normalised(module.split(".")[0]), version, lambda: plugin)


def disabled_names() -> frozenset[str]:
    """The plugin and distribution names in EULERSTACK_DISABLE_PLUGINS, a list separated by commas."""
    listed = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in listed if name.strip())


def is_meant(source: PluginSource, name: str) -> bool:
    """Whether `name` means this plugin: its own name, its distribution's, or "package:name"."""
    return name in (source.name, source.identity) or normalised(name) == source.package


def is_disabled(source: PluginSource, names: Iterable[str]) -> bool:
    """Whether the user switched this plugin off."""
    return any(is_meant(source, name) for name in names)
