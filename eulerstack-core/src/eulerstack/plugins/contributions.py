"""What one plugin hands out, checked: every hook's result has the promised type and lawful names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pluggy

from eulerstack.errors import Message, msg
from eulerstack.plugins import hookspecs
from eulerstack.plugins.deprecation import modern
from eulerstack.plugins.faults import PluginFault
from eulerstack.plugins.field_types import wrong_fields
from eulerstack.plugins.memory import has_memory_words
from eulerstack.plugins.primitive import (
    Catalog,
    Importer,
    Namespace,
    PresetFolder,
    Primitive,
    Rule,
    SchemaFragment,
    Target,
)

KIND_OF_HOOK = {
    "eulerstack_mixers": "mixer",
    "eulerstack_ffns": "ffn",
    "eulerstack_norms": "norm",
    "eulerstack_positions": "position",
    "eulerstack_residuals": "residual",
    "eulerstack_heads": "head",
    "eulerstack_integrators": "integrator",
    "eulerstack_merges": "merge",
    "eulerstack_memories": "memory",
    "eulerstack_linears": "linear",
}
TYPE_OF_HOOK: dict[str, type] = {
    **dict.fromkeys(KIND_OF_HOOK, Primitive),
    "eulerstack_schema_fragments": SchemaFragment,
    "eulerstack_namespaces": Namespace,
    "eulerstack_rules": Rule,
    "eulerstack_presets": PresetFolder,
    "eulerstack_messages": Catalog,
    "eulerstack_targets": Target,
    "eulerstack_importers": Importer,
}
# The sections that a plugin may add words to; "" is the top level.
FRAGMENT_PLACES = ("", "model", "tokenizer_contract", "embedding", "head", "training_hints", "compatibility")
# Tables of weights are large and one command needs them, so they are asked for only then.
ON_DEMAND = ("eulerstack_importers",)
# What primitives of a kind must declare.
NEEDED = {"mixer": "cache", "residual": "norm_slots", "memory": "cache"}
# No plugin has as many declarations; an iterator that never ends does.
MOST_ITEMS = 10_000
PREFIX = "eulerstack_"
CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass
class Contribution:
    """All declarations of one plugin: hook name -> items, and a sentence for each deprecated thing that it uses."""

    items: dict[str, list[Any]] = field(default_factory=dict)
    deprecations: list[Message] = field(default_factory=list)

    def primitives(self) -> Iterator[Primitive]:
        """The primitives of every kind."""
        for hook in KIND_OF_HOOK:
            yield from self.items.get(hook, ())

    def claims(self) -> list[tuple[str, str]]:
        """Every (space, name) that no other plugin may claim; a primitive's space is its kind."""
        claims: list[tuple[str, str]] = [(primitive.kind, primitive.name) for primitive in self.primitives()]
        claims += [("namespace", namespace.key) for namespace in self.items.get("eulerstack_namespaces", ())]
        claims += [("rule", rule.name) for rule in self.items.get("eulerstack_rules", ())]
        claims += [("target", target.name) for target in self.items.get("eulerstack_targets", ())]
        claims += [
            (f"field of {fragment.place or 'the top level'}", key)
            for fragment in self.items.get("eulerstack_schema_fragments", ())
            for key in fragment.properties
        ]
        return claims


def register(manager: pluggy.PluginManager, plugin: object, identity: str) -> None:
    """Registers `plugin`, or raises and leaves the manager as it was."""
    declared = getattr(plugin, "EULERSTACK_API_VERSION", hookspecs.API_VERSION)
    if declared != hookspecs.API_VERSION:
        raise PluginFault(
            msg("it is written for plugin API {theirs}, this is {ours}", theirs=declared, ours=hookspecs.API_VERSION)
        )
    try:
        manager.register(plugin, name=identity)
        callers = manager.get_hookcallers(plugin) or []
        unknown = sorted(caller.name for caller in callers if not caller.has_spec())
        if unknown:
            raise PluginFault(_no_such_hook(unknown))
        implemented = {caller.name for caller in callers}
        unmarked = [
            hook for hook in hookspecs.HOOKS if hook not in implemented and callable(getattr(plugin, hook, None))
        ]
        if unmarked:
            raise PluginFault(msg("{hook} is not marked with @hookimpl", hook=", ".join(unmarked)))
        if not callers:
            raise PluginFault(msg("it implements no hook"))
    except BaseException:
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        raise


def _no_such_hook(unknown: list[str]) -> Message:
    """That there are no hooks of these names, and the names that were probably meant.

    Names are compared without the prefix that all hooks share, which would make any two of them look alike.
    """
    what = msg("there is no hook called {hook}", hook=", ".join(unknown))
    known = {hook.removeprefix(PREFIX): hook for hook in hookspecs.HOOKS}
    near = [known[match] for name in unknown for match in get_close_matches(name.removeprefix(PREFIX), known, n=1)]
    return msg("{what}; did you mean {near}?", what=what, near=", ".join(near)) if near else what


def collect(manager: pluggy.PluginManager, plugin: object, on_demand: bool = False) -> Contribution:
    """Calls the hooks of a registered plugin, those of `ON_DEMAND` or all others, and checks what they return.

    What a deprecated hook returns counts as its successor's; an item that both return, for cores old and new, is one.
    """
    contribution = Contribution()
    for caller in manager.get_hookcallers(plugin) or []:
        about = hookspecs.HOOKS[caller.name]
        hook = about.instead or caller.name
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin or (hook in ON_DEMAND) != on_demand:
                continue
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginFault(msg("{hook} is a hook wrapper, which plugins may not use", hook=caller.name))
            if about.deprecated:
                contribution.deprecations.append(about.notice(caller.name))
            known = contribution.items.setdefault(hook, [])
            items, notices = modern(_checked(hook, implementation.function()))
            known += [item for item in items if not any(item is each for each in known)]
            contribution.deprecations += notices
    return contribution


def _checked(hook: str, result: Any) -> list[Any]:
    expected = TYPE_OF_HOOK[hook]
    try:
        given = iter(result)
    except TypeError:
        raise PluginFault(
            msg("{hook} returned {got}, not an iterable of {expected}", hook=hook, got=repr(result)[:80],
                expected=expected.__name__)
        ) from None  # fmt: skip
    items: list[Any] = []
    for item in given:
        items.append(item)
        if len(items) > MOST_ITEMS:
            raise PluginFault(msg("{hook} returned more than {most} items", hook=hook, most=MOST_ITEMS))
        if not isinstance(item, expected):
            raise PluginFault(
                msg("{hook} returned an item of type {got}, not {expected}", hook=hook, got=type(item).__name__,
                    expected=expected.__name__)
            )  # fmt: skip
        _check_fields(item)
        if isinstance(item, Primitive):
            _check_primitive(hook, item)
        elif isinstance(item, SchemaFragment):
            _check_fragment(item)
        _check_function(item)
    return items


def _check_fields(item: Any) -> None:
    """Every field of a declaration holds what its annotation says."""
    for name, got, expected in wrong_fields(item):
        owner = getattr(item, "name", None)
        raise PluginFault(
            msg("the field {field} of {name} is {got}, not {expected}", field=name, got=got, expected=expected,
                name=owner if isinstance(owner, str) else type(item).__name__)
        )  # fmt: skip


def _check_fragment(fragment: SchemaFragment) -> None:
    """A fragment names a section that is there, and words with schemas that are mappings."""
    if fragment.place not in FRAGMENT_PLACES:
        raise PluginFault(
            msg("it adds words to {place}, which is none of: {places}", place=repr(fragment.place),
                places=", ".join(repr(place) for place in FRAGMENT_PLACES))
        )  # fmt: skip
    for word, schema in fragment.properties.items():
        if not isinstance(schema, Mapping):
            raise PluginFault(msg("the schema of {name} is not a mapping", name=word))


def _check_function(item: Any) -> None:
    """A target's function and a namespace's hook are named as text."""
    if isinstance(item, Target):
        name, path = item.name, item.function
    elif isinstance(item, Namespace) and item.compile is not None:
        name, path = item.key, item.compile
    else:
        return
    if not CLASS_PATH.fullmatch(path):
        raise PluginFault(
            msg("the function of {name} is {got}, not of the form package.module:function", name=name, got=repr(path))
        )


def _check_primitive(hook: str, primitive: Primitive) -> None:
    kind = KIND_OF_HOOK[hook]
    if primitive.kind != kind:
        raise PluginFault(
            msg("{hook} returned {name}, whose kind is {got}, not {expected}", hook=hook, name=primitive.name,
                got=primitive.kind, expected=kind)
        )  # fmt: skip
    if not primitive.name:
        raise PluginFault(msg("{hook} returned a primitive without a name", hook=hook))
    _check_contract(primitive)
    if not _needs_class(primitive):
        return
    if not CLASS_PATH.fullmatch(primitive.module):
        raise PluginFault(
            msg("the module of {name} is {got}, not of the form package.module:Class", name=primitive.name,
                got=repr(primitive.module))
        )  # fmt: skip


def _needs_class(primitive: Primitive) -> bool:
    """Whether a model has a module of this primitive, or may have one."""
    return not primitive.absent and not (primitive.kind == "position" and primitive.module == "")


def _check_contract(primitive: Primitive) -> None:
    """What each kind must declare, because the core can't find it out."""
    if primitive.holds is not None:
        _check_holder(primitive)
        return
    needed = NEEDED.get(primitive.kind)
    if needed is not None and getattr(primitive, needed) is None:
        raise PluginFault(
            msg("{name}, of the kind {kind}, declares no {needed}", name=primitive.name, kind=primitive.kind,
                needed=needed)
        )  # fmt: skip
    if primitive.kind == "memory" and not has_memory_words(primitive.inline):
        raise PluginFault(
            msg("{name}, of the kind {kind}, declares no {needed}", name=primitive.name, kind=primitive.kind,
                needed="MEMORY_WORDS")
        )  # fmt: skip
    if primitive.place != "mixers" and primitive.module == "":
        raise PluginFault(
            msg("the module of {name} is {got}, not of the form package.module:Class", name=primitive.name,
                got=repr(primitive.module))
        )  # fmt: skip


def _check_holder(primitive: Primitive) -> None:
    """A primitive that holds others is a mixer with a block, and has no cache slot of its own."""
    if primitive.kind != "mixer" or primitive.schema is None or primitive.cache is not None:
        raise PluginFault(
            msg("{name} holds other primitives, so it must be a mixer with a schema and without a cache",
                name=primitive.name)
        )  # fmt: skip
