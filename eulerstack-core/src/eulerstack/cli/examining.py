"""What `plugins doctor` finds out: about each plugin, about the packages it rests on, about kernels."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Any

from eulerstack import __version__
from eulerstack.cli.plugins import has_nvidia_driver, in_use, is_available
from eulerstack.compiler.trial import tried
from eulerstack.errors import Diagnostic, Message, msg
from eulerstack.plugins.faults import PluginFault
from eulerstack.plugins.hookspecs import API_VERSION
from eulerstack.plugins.manager import PluginRecord, Registry, reset_registry
from eulerstack.plugins.primitive import Primitive
from eulerstack.plugins.probe import Death, probed
from eulerstack.plugins.sources import (
    DISABLE_VARIABLE,
    GROUP,
    disabled_names,
    installed_sources,
    is_disabled,
    normalised,
    unreadable,
)
from eulerstack.plugins.time_limit import LIMIT_VARIABLE, TookTooLong, at_most, seconds_allowed
from eulerstack.presets import presets

BUILDERS = ("torch", "transformers", "safetensors", "tokenizers", "huggingface-hub")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a plugin, or a package, from doing what it is for, and what to type."""

    what: Message
    fix: Message | None = None


@dataclass
class Plugin:
    """A plugin, what is wrong with it, and what is worth knowing."""

    record: PluginRecord
    problems: list[Problem] = field(default_factory=list)
    notes: list[Message] = field(default_factory=list)
    traceback: str = ""


@dataclass(frozen=True)
class KernelState:
    """A kernel, the words that it computes, and whether it does so here."""

    name: str
    device: str
    words: tuple[str, ...]
    state: Message
    used: bool


@dataclass
class Examination:
    """Everything that was found; `problems` are those of no plugin in particular."""

    plugins: list[Plugin]
    problems: list[Problem]
    kernels: list[KernelState]
    packages: dict[str, str | None]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(plugin.problems for plugin in self.plugins)

    python: str = field(default_factory=platform.python_version)
    eulerstack: str = __version__
    api_version: int = API_VERSION


def examine() -> Examination:
    """Loads every plugin, third parties' in a child process first, and tries each word in a small model.

    The plugins loaded here are this process's from then on.
    """
    registry, deaths = _loaded()
    plugins = [_plugin(record, deaths) for record in registry.records()]
    by_record = {id(plugin.record): plugin for plugin in plugins}
    for primitive in registry.primitives():
        _try(by_record[id(registry.record_of(primitive))], primitive)
    for each in plugins:
        unmet = list(_unmet(each.record.package))
        # What a plugin that is switched off lacks hinders nobody, but is worth knowing before it is switched on again.
        if each.record.state == "disabled":
            each.notes += [problem.what for problem in unmet]
        else:
            each.problems += unmet
    _look_for_presets(registry, by_record)
    problems = [Problem(message) for message in registry.warnings()]
    problems += [
        Problem(
            msg("the files of {folder} can't be read: {error}", folder=folder, error=type(error).__name__),
            msg("Install the package again, or remove it"),
        )
        for folder, error in unreadable()
    ]
    problems += _without_entry_point({plugin.record.package for plugin in plugins})
    return Examination(plugins, problems, list(_kernels(registry)), {name: _version(name) for name in BUILDERS})


def _loaded() -> tuple[Registry, dict[str, Death]]:
    """The registry of everything that can be loaded, and what became of what can't without harm."""
    sources, disabled = installed_sources(), disabled_names()
    deaths = probed([source for source in sources if not source.own and not is_disabled(source, disabled)])
    harmless = [replace(each, load=_raising(deaths[each.identity])) if each.identity in deaths else each
                for each in sources]  # fmt: skip
    registry = Registry(harmless)
    reset_registry(registry)
    return registry, deaths


def _raising(death: Death) -> Any:
    def load() -> object:
        raise PluginFault(death.error)

    return load


def _plugin(record: PluginRecord, deaths: dict[str, Death]) -> Plugin:
    plugin = Plugin(record, notes=list(record.deprecations), traceback=record.traceback)
    death = deaths.get(record.identity)
    if death is not None:
        plugin.traceback = death.traceback
    if record.state in ("broken", "conflicting") and record.error is not None:
        fix = msg("pip install --upgrade {package}, or set {variable}={plugin}", package=record.package,
                  variable=DISABLE_VARIABLE, plugin=record.identity)  # fmt: skip
        plugin.problems.append(Problem(record.error, fix))
    elif record.error is not None:
        plugin.notes.append(record.error)
    return plugin


def _try(plugin: Plugin, primitive: Primitive) -> None:
    """Adds what is wrong with the code of one word."""
    seconds = seconds_allowed()
    found: tuple[Diagnostic, ...] = ()
    try:
        with at_most(seconds):
            found = tried(primitive).problems
    except TookTooLong:
        what = msg("the code of {name} took more than {seconds} seconds; {variable} sets the limit",
                   name=primitive.name, seconds=f"{seconds:g}", variable=LIMIT_VARIABLE)  # fmt: skip
        plugin.problems.append(Problem(what))
    values = (("kind", primitive.kind), ("name", primitive.name))
    plugin.problems += [
        Problem(Message("{kind} {name}: {what}", (*values, ("what", each.what))), each.fix) for each in found
    ]
    plugin.traceback = plugin.traceback or plugin.record.traceback


def _unmet(package: str) -> Iterator[Problem]:
    """The requirements of a distribution that the environment does not meet."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        listed = requires(package) or []
    # A plugin handed over as an object, or one whose files can't be read, has no list.
    except Exception:
        return
    for text in listed:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            yield Problem(msg("it requires {requirement}, which nobody understands", requirement=text))
            continue
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        needed.marker = None
        here = _version(needed.name)
        fix = msg("pip install {package}", package=f"'{needed}'")
        if here is None:
            yield Problem(msg("it requires {requirement}, which is not installed", requirement=str(needed)), fix)
        elif not needed.specifier.contains(here, prereleases=True):
            what = msg("it requires {requirement}, but {version} is installed", requirement=str(needed), version=here)
            yield Problem(what, fix)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _look_for_presets(registry: Registry, by_record: dict[int, Plugin]) -> None:
    """Adds folders that are not there, and presets that another plugin's of the same name hide."""
    shown = {preset.name: preset.path for preset in presets(registry)}
    for folder in registry.presets():
        plugin, place = by_record[id(registry.record_of(folder))], Path(folder.path)
        if not place.is_dir():
            plugin.problems.append(Problem(msg("there is no folder {path} for its presets", path=folder.path)))
            continue
        for path in sorted(place.glob("*.y*ml")):
            if shown.get(path.stem, path) != path:
                plugin.problems.append(
                    Problem(msg("its preset {name} is hidden by {path}", name=path.stem, path=str(shown[path.stem])))
                )


def _without_entry_point(known: set[str]) -> Iterator[Problem]:
    """Packages that look like plugins and have no entry point in our group."""
    for distribution in distributions():
        # A package that can't be read is named elsewhere.
        try:
            name = normalised(distribution.metadata["Name"])
            groups = {point.group for point in distribution.entry_points}
            needed = [normalised(text.split("[")[0].split(";")[0].split("=")[0].split(">")[0].split("<")[0].strip())
                      for text in distribution.requires or ()]  # fmt: skip
        except Exception:
            continue
        near = sorted(group for group in groups if group.startswith(GROUP) and group != GROUP)
        if name in known or GROUP in groups:
            continue
        if near:
            what = msg("{package} has an entry point in the group {group}, not in {ours}", package=name, group=near[0],
                       ours=GROUP)  # fmt: skip
            yield Problem(what, msg("Write [project.entry-points.{group}] in its pyproject.toml", group=GROUP))
        elif name.startswith(f"{GROUP}-") and "eulerstack-core" in needed:
            what = msg("{package} has no entry point in the group {group}", package=name, group=GROUP)
            yield Problem(what, msg("Write [project.entry-points.{group}] in its pyproject.toml", group=GROUP))


def _kernels(registry: Registry) -> Iterator[KernelState]:
    """Every declared kernel, once."""
    words: dict[Any, list[str]] = defaultdict(list)
    for primitive in registry.primitives():
        for kernel in primitive.kernels:
            words[kernel].append(primitive.name)
    for kernel, names in words.items():
        if not is_available(kernel):
            state = msg("not installed: {packages}", packages=", ".join(kernel.requires))
        elif in_use(kernel):
            state = msg("in use")
        elif not has_nvidia_driver():
            state = msg("idle: no NVIDIA driver is loaded")
        else:
            state = msg("idle: torch is not built for CUDA")
        yield KernelState(kernel.name, kernel.device, tuple(names), state, in_use(kernel))
