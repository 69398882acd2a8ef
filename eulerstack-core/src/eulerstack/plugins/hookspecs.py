"""The hooks. Each returns declarations; none of them may import torch.

A plugin is a module or object registered under the entry-point group `eulerstack`, with functions of these names
decorated by `eulerstack.plugins.hookimpl`. Each hook is marked with the version of the core that added it. One that is
to go is marked as deprecated first: it works as before until the next version of the interface, and
`eulerstack plugins doctor` names the plugins that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from eulerstack.plugins.deprecation import HookInfo
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

API_VERSION = 1
hookspec = pluggy.HookspecMarker("eulerstack")
hookimpl = pluggy.HookimplMarker("eulerstack")

HOOKS: dict[str, HookInfo] = {}
"""Every hook's marks, by its name."""


def hook(since: str, deprecated: str = "", instead: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function as a hook.

    `since` is the version of the core that added it, `deprecated` the one from which on it is deprecated, and `instead`
    the hook that takes its place, which must return items of the same type.
    """

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        HOOKS[function.__name__] = HookInfo(since, deprecated, instead)
        return hookspec(function)

    return marked


@hook(since="1.0")
def eulerstack_mixers() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Token mixers: attention and its alternatives."""


@hook(since="1.0")
def eulerstack_ffns() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Channel mixers: feed-forward blocks."""


@hook(since="1.0")
def eulerstack_norms() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Normalisations."""


@hook(since="1.0")
def eulerstack_positions() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Ways to tell positions apart: the words of `embedding.positional`."""


@hook(since="1.0")
def eulerstack_residuals() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Rules that join a layer's branches with its input."""


@hook(since="1.0")
def eulerstack_heads() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Output heads."""


@hook(since="1.0")
def eulerstack_integrators() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Stages that apply a layer several times: the types of a schedule entry's `integrator`."""


@hook(since="1.0")
def eulerstack_merges() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """What makes one stream of several: the types of a schedule entry's `merge`."""


@hook(since="1.0")
def eulerstack_memories() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Memories beside a mixer, which are written while the model reads."""


@hook(since="1.0")
def eulerstack_linears() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Ways to compute a linear layer, which a namespace may put in the place of one."""


@hook(since="1.0")
def eulerstack_schema_fragments() -> Iterable[SchemaFragment]:  # type: ignore[empty-body]
    """Fields added to a section of the language; names must lie in a reserved namespace."""


@hook(since="1.0")
def eulerstack_namespaces() -> Iterable[Namespace]:  # type: ignore[empty-body]
    """Handlers of reserved-namespace keys."""


@hook(since="1.0")
def eulerstack_rules() -> Iterable[Rule]:  # type: ignore[empty-body]
    """Realism rules of `validate --report`."""


@hook(since="1.0")
def eulerstack_presets() -> Iterable[PresetFolder]:  # type: ignore[empty-body]
    """Folders of presets."""


@hook(since="1.0")
def eulerstack_messages() -> Iterable[Catalog]:  # type: ignore[empty-body]
    """Translations of the plugin's own messages."""


@hook(since="1.0")
def eulerstack_targets() -> Iterable[Target]:  # type: ignore[empty-body]
    """Back ends of `compile`."""


@hook(since="1.0")
def eulerstack_importers() -> Iterable[Importer]:  # type: ignore[empty-body]
    """HuggingFace families that `import` reads."""
