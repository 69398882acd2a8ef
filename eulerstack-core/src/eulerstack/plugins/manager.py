"""The registry: loads plugins once, keeps each fault to the plugin that made it, answers by name.

A plugin that can't be imported, takes too long, breaks the contract or claims a name that is taken is set aside with
its traceback; everything else works. Which one is set aside never depends on the order of loading: this project's
packages come before third parties, and third parties that claim the same name are all set aside.
"""

from __future__ import annotations

import io
import os
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from typing import Any

import pluggy

from eulerstack.errors import CompatibilityError, Diagnostic, Message, msg
from eulerstack.plugins import hookspecs
from eulerstack.plugins.contributions import Contribution, collect, register
from eulerstack.plugins.faults import PluginFault, reason_of
from eulerstack.plugins.primitive import (
    KINDS,
    Catalog,
    Importer,
    Kind,
    Namespace,
    PresetFolder,
    Primitive,
    Rule,
    SchemaFragment,
    Target,
)
from eulerstack.plugins.sources import (
    ALL_OTHERS,
    DISABLE_VARIABLE,
    STRICT_VARIABLE,
    PluginRecord,
    PluginSource,
    as_source,
    core_sources,
    disabled_names,
    installed_sources,
    is_disabled,
    is_meant,
)
from eulerstack.plugins.third_party import check_third_party
from eulerstack.plugins.time_limit import LIMIT_VARIABLE, TookTooLong, at_most, seconds_allowed

__all__ = ["PluginRecord", "PluginSource", "Registry", "get_registry", "reset_registry"]


class Registry:
    """All that the given plugins and the core's own provide.

    `plugins` are plugin objects (modules, instances) or `PluginSource`s. Names are read only after every plugin has
    been loaded, so their order has no effect.
    """

    def __init__(self, plugins: Iterable[object] = ()):
        self._manager = pluggy.PluginManager("eulerstack")
        self._manager.add_hookspecs(hookspecs)
        self._records: list[PluginRecord] = []
        self._loaded: list[tuple[PluginRecord, object, Contribution]] = []
        self._importers: list[Importer] | None = None
        disabled = disabled_names()
        sources = [as_source(plugin) for plugin in plugins]
        self._known = sorted({name for source in sources for name in (source.name, source.package)})
        self.not_disabled = sorted(
            name for name in disabled if name != ALL_OTHERS and not any(is_meant(source, name) for source in sources)
        )
        for source in [*core_sources(), *sorted(sources, key=lambda source: (not source.own, source.identity))]:
            self._load(source, disabled)
        self._set_conflicts_aside()
        self._primitives: dict[tuple[str, str], tuple[Primitive, PluginRecord]] = {
            (primitive.kind, primitive.name): (primitive, record)
            for record, _, contribution in self._loaded
            for primitive in contribution.primitives()
        }

    def _load(self, source: PluginSource, disabled: Iterable[str]) -> None:
        module = source.target.partition(":")[0].partition(".")[0].strip()
        record = PluginRecord(source.name, source.package, source.version, own=source.own, module=module)
        self._records.append(record)
        if source.package != "eulerstack-core" and is_disabled(source, disabled):
            record.state, record.error = "disabled", _why_disabled(source, disabled)
            return
        plugin: object = None
        try:
            with _guest(source.own):
                plugin = source.load()
                record.api_version = getattr(plugin, "EULERSTACK_API_VERSION", hookspecs.API_VERSION)
                twin = self._manager.get_name(plugin)
                if twin:
                    record.state, record.error = "disabled", msg("it is the same plugin as {other}", other=twin)
                    return
                register(self._manager, plugin, source.identity)
                contribution = collect(self._manager, plugin)
                record.primitives = tuple((primitive.kind, primitive.name) for primitive in contribution.primitives())
                record.deprecations = tuple(contribution.deprecations)
                if not source.own:
                    check_third_party(contribution)
                _check_unique(contribution)
        except KeyboardInterrupt:
            raise
        # A plugin may fail with anything, SystemExit included; whatever it is, it concerns that plugin alone.
        except BaseException as error:
            _mark_broken(record, error)
            if plugin is not None and self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            return
        record.provides = tuple(contribution.claims())
        self._loaded.append((record, plugin, contribution))

    def _set_conflicts_aside(self) -> None:
        claimants: dict[tuple[str, str], list[PluginRecord]] = {}
        for record, _, contribution in self._loaded:
            for claim in contribution.claims():
                claimants.setdefault(claim, []).append(record)
        for (space, name), records in claimants.items():
            _losers(records, space, name)
        for record, plugin, _ in self._loaded:
            if record.state == "conflicting":
                self._manager.unregister(plugin)
        self._loaded = [entry for entry in self._loaded if entry[0].state == "ok"]

    def _items(self, hook: str) -> list[Any]:
        return [item for _, _, contribution in self._loaded for item in contribution.items.get(hook, ())]

    def get(self, kind: Kind | str, name: str) -> Primitive:
        """The primitive called `name`; raises LookupError when no working plugin provides it."""
        try:
            return self._primitives[kind, name][0]
        except KeyError:
            raise LookupError(f"no plugin provides the {kind} {name!r}") from None

    def names(self, kind: Kind | str) -> list[str]:
        """The names of all primitives of a kind, sorted."""
        return sorted(name for its_kind, name in self._primitives if its_kind == kind)

    def primitives(self, kind: Kind | str | None = None) -> list[Primitive]:
        """The primitives of a kind sorted by name, or of all kinds in the order of `KINDS`."""
        kinds = KINDS if kind is None else (kind,)
        return [self.get(each, name) for each in kinds for name in self.names(each)]

    def origin(self, primitive: Primitive) -> tuple[str, str]:
        """(package, version) of the distribution that provides it."""
        record = self._primitives[primitive.kind, primitive.name][1]
        return record.package, record.version

    def provider(self, item: object) -> tuple[str, str]:
        """(package, version) of the distribution that provides a declaration of any hook."""
        record = self.record_of(item)
        return record.package, record.version

    def is_own(self, item: object) -> bool:
        """Whether a declaration is this project's, so that what goes wrong in it is a defect of ours."""
        return self.record_of(item).own

    def keep_traceback(self, item: object, error: BaseException) -> None:
        """Keeps the traceback of what the code of a declaration raised after it was loaded, for `plugins doctor`."""
        self.record_of(item).traceback = "".join(traceback.format_exception(error))

    def record_of(self, item: object) -> PluginRecord:
        for record, _, contribution in self._loaded:
            if any(each is item for items in contribution.items.values() for each in items):
                return record
        raise LookupError(f"no plugin provides {item!r:.80}")

    def rules(self) -> list[Rule]:
        """Realism rules, the core's first."""
        return self._items("eulerstack_rules")

    def presets(self) -> list[PresetFolder]:
        """Folders of presets."""
        return self._items("eulerstack_presets")

    def importers(self) -> list[Importer]:
        """HuggingFace families that `import` reads; asked for on the first call.

        A plugin that fails here keeps its words and is recorded as broken; one that names a family which another
        already reads is recorded as conflicting.
        """
        if self._importers is None:
            self._importers = []
            by_family: dict[str, list[tuple[PluginRecord, Importer]]] = {}
            for record, plugin, _ in self._loaded:
                try:
                    with _guest(record.own):
                        contribution = collect(self._manager, plugin, on_demand=True)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    _mark_broken(record, error)
                    continue
                record.deprecations += tuple(contribution.deprecations)
                for importer in contribution.items.get("eulerstack_importers", ()):
                    by_family.setdefault(importer.model_type, []).append((record, importer))
            for family, offers in by_family.items():
                losers = _losers([record for record, _ in offers], "importer", family)
                self._importers += [
                    importer for record, importer in offers if not any(record is each for each in losers)
                ]
        return self._importers

    def targets(self) -> list[Target]:
        """Back ends of `compile`."""
        return self._items("eulerstack_targets")

    def namespaces(self) -> list[Namespace]:
        """Handlers of reserved-namespace keys."""
        return self._items("eulerstack_namespaces")

    def schema_fragments(self) -> list[SchemaFragment]:
        """Fields that plugins add to the language."""
        return self._items("eulerstack_schema_fragments")

    def catalogs(self) -> list[Catalog]:
        """Translations of plugins' own messages."""
        return self._items("eulerstack_messages")

    def records(self) -> list[PluginRecord]:
        """Every installed plugin and its state: working, broken, conflicting or disabled."""
        self.importers()
        return list(self._records)

    def warnings(self) -> list[Message]:
        """A sentence for each name in EULERSTACK_DISABLE_PLUGINS that switches nothing off."""
        found = []
        for name in self.not_disabled:
            near = get_close_matches(name, self._known, n=1)
            what = msg(
                "{variable} names {name}, which switches off no installed plugin", variable=DISABLE_VARIABLE, name=name
            )
            found.append(msg("{what}; did you mean {near}?", what=what, near=near[0]) if near else what)
        return found

    def faults(self) -> list[PluginRecord]:
        """The plugins that were set aside against the user's will."""
        return [record for record in self._records if record.state in ("broken", "conflicting")]

    def explain_missing(self, kind: Kind | str, name: str) -> Message | None:
        """Why a plugin that would or might provide this primitive is not in use; None when there is no suspect."""
        aside = [record for record in self._records if record.state != "ok"]
        suspects: Sequence[PluginRecord] = [record for record in aside if (kind, name) in record.primitives]
        silent = [record for record in aside if not record.primitives]
        if not suspects and name.startswith("vendor."):
            vendor = name.split(".")[1].lower()
            suspects = [record for record in silent if vendor in f"{record.package} {record.name}".lower()]
        elif not suspects:
            suspects = [record for record in silent if record.own]
        suspects = suspects or [record for record in silent if record.state == "broken"]
        if not suspects:
            return None
        first = suspects[0]
        return msg(
            "the plugin {plugin} of {package} {version} is {state}: {error}",
            plugin=first.name,
            package=first.package,
            version=first.version,
            state=first.state,
            error=first.error or "",
        )


def _mark_broken(record: PluginRecord, error: BaseException) -> None:
    record.state = "broken"
    record.traceback = "".join(traceback.format_exception(error))
    if isinstance(error, PluginFault):
        record.error = error.message
    elif isinstance(error, TookTooLong):
        record.error = msg(
            "loading it took more than {seconds} seconds; {variable} sets the limit",
            seconds=f"{seconds_allowed():g}",
            variable=LIMIT_VARIABLE,
        )
    else:
        record.error = msg("loading it raised {error}", error=reason_of(error))


def _why_disabled(source: PluginSource, names: Iterable[str]) -> Message:
    if any(is_meant(source, name) for name in names):
        return msg("it is named in EULERSTACK_DISABLE_PLUGINS")
    return msg("third parties' plugins are switched off, by --no-plugins or EULERSTACK_DISABLE_PLUGINS=*")


def _losers(records: list[PluginRecord], space: str, name: str) -> list[PluginRecord]:
    """Marks those who may not have the name that all of `records` claim, and returns them."""
    if len(records) < 2:
        return []
    own = [record for record in records if record.own]
    # Our packages come first, in the order of their names; the first of them keeps the name.
    losers = [record for record in records if not own or record is not own[0]]
    for record in losers:
        others = sorted({other.package for other in records if other is not record})
        record.state = "conflicting"
        record.error = msg(
            "{name} ({space}) is provided by {others} too", name=name, space=space, others=", ".join(others)
        )
    return losers


def _check_unique(contribution: Contribution) -> None:
    seen: set[tuple[str, str]] = set()
    for claim in contribution.claims():
        if claim in seen:
            raise PluginFault(msg("it provides {name} ({space}) twice", name=claim[1], space=claim[0]))
        seen.add(claim)


@contextmanager
def _guest(own: bool) -> Iterator[None]:
    """The conditions under which a third party's code is loaded.

    It has a limited time, and what it prints or warns about stays out of our output, which programs read.
    """
    if own:
        yield
        return
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with at_most(seconds_allowed()):
            yield


_lock = threading.RLock()
_registry: Registry | None = None
_loading = False


def get_registry(strict: bool | None = None) -> Registry:
    """The registry of all installed plugins, loaded on the first call.

    When `strict` (default: EULERSTACK_STRICT_PLUGINS=1), raises a CompatibilityError that names every plugin that is
    broken or conflicting, and every name in EULERSTACK_DISABLE_PLUGINS that means no plugin.
    """
    global _registry, _loading
    with _lock:
        if _registry is None:
            if _loading:
                raise RuntimeError("a plugin asked for the registry while it was being loaded")
            _loading = True
            try:
                _registry = Registry(installed_sources())
            finally:
                _loading = False
        registry = _registry
    if strict is None:
        strict = os.environ.get(STRICT_VARIABLE, "") not in ("", "0")
    if strict and (registry.faults() or registry.not_disabled):
        raise CompatibilityError([*map(_fault, registry.faults()), *map(_unknown_disabled, registry.warnings())])
    return registry


def reset_registry(registry: Registry | None = None) -> None:
    """Forgets the loaded plugins, so that the next `get_registry` reads the entry points again, or gives `registry`."""
    global _registry
    with _lock:
        _registry = registry


def _fault(record: PluginRecord) -> Diagnostic:
    return Diagnostic(
        "CompatibilityError",
        msg(
            "the plugin {plugin} of {package} {version} is {state}: {error}",
            plugin=record.name,
            package=record.package,
            version=record.version,
            state=record.state,
            error=record.error or "",
        ),
        msg("pip install --upgrade {package}, or set {variable}={plugin}", package=record.package,
            variable=DISABLE_VARIABLE, plugin=record.identity),
        "reference/plugins.md#states",
    )  # fmt: skip


def _unknown_disabled(warning: Message) -> Diagnostic:
    return Diagnostic(
        "CompatibilityError",
        warning,
        msg("write the name as eulerstack plugins list shows it, or take it out of {variable}",
            variable=DISABLE_VARIABLE),
        "reference/plugins.md#environment",
    )  # fmt: skip
