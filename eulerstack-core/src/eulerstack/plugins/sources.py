"""Where plugins come from: installed entry points, the core's own modules, and objects handed over in tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from eulerstack.errors import Message
from eulerstack.plugins.time_limit import TookTooLong, at_most

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
# In the list of names to do without: every plugin that is not this project's.
ALL_OTHERS = "*"
# Files of installed packages lie on a disk; one that takes longer is a pipe, or its disk is gone.
METADATA_SECONDS = 10.0

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
    plugin that failed before it could say. `provides` lists (space, name) of everything that it has to itself, its
    primitives' kinds among the spaces. `error` is a translatable sentence, `traceback` the text of the exception;
    `deprecations` are sentences about what it uses and should not for long. `module` is the top-level package of its
    code.
    """

    name: str
    package: str
    version: str
    state: State = "ok"
    error: Message | None = None
    traceback: str = ""
    primitives: tuple[tuple[str, str], ...] = ()
    provides: tuple[tuple[str, str], ...] = ()
    api_version: object = None
    module: str = field(default="", repr=False)
    deprecations: tuple[Message, ...] = ()
    own: bool = field(default=False, repr=False)

    @property
    def identity(self) -> str:
        """A name that no other plugin has: "package:name"."""
        return f"{self.package}:{self.name}"


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
    """All entry points of our group; an installed package whose files are damaged, or can't be read, is passed over."""
    from importlib.metadata import entry_points

    try:
        with at_most(METADATA_SECONDS):
            return list(entry_points(group=GROUP))
    # One damaged file among all installed packages spoils the whole call; then they are read one by one.
    except (Exception, TookTooLong):
        return [point for points, _, _ in _one_by_one() for point in points]


def _one_by_one() -> Iterator[tuple[list[EntryPoint], str, BaseException | None]]:
    """For every installed package: its entry points of our group, its folder, and what kept us from reading it."""
    from importlib.metadata import distributions

    for distribution in distributions():
        place = str(getattr(distribution, "_path", "?"))
        try:
            with at_most(METADATA_SECONDS):
                points = [point for point in distribution.entry_points if point.group == GROUP]
        except (Exception, TookTooLong) as error:
            yield [], place, error
        else:
            yield points, place, None


def unreadable() -> list[tuple[str, BaseException]]:
    """(folder, error) of each installed package whose entry points can't be read, so that nobody knows what it has."""
    return [(place, error) for _, place, error in _one_by_one() if error is not None]


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that brings an entry point, as far as its files tell."""
    try:
        with at_most(METADATA_SECONDS):
            metadata = point.dist.metadata if point.dist else None
            name, version = (metadata["Name"], metadata["Version"]) if metadata else (None, None)
    # Files that can't be read say nothing.
    except (Exception, TookTooLong):
        name = version = None
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
    return PluginSource(name, normalised(module.split(".")[0]), version, lambda: plugin, module)


def disabled_names() -> frozenset[str]:
    """The plugin and distribution names in EULERSTACK_DISABLE_PLUGINS, a list separated by commas; `*` may be one."""
    listed = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in listed if name.strip())


def is_meant(source: PluginSource, name: str) -> bool:
    """Whether `name` means this plugin: its own name, its distribution's, or "package:name"."""
    return name in (source.name, source.identity) or normalised(name) == source.package


def is_disabled(source: PluginSource, names: Iterable[str]) -> bool:
    """Whether the user switched this plugin off."""
    return any(is_meant(source, name) or (name == ALL_OTHERS and not source.own) for name in names)
