"""The hooks. Each returns declarations; none of them may import torch.

A plugin is a module or object registered under the entry-point group `eulerstack`, with functions of these names
decorated by `eulerstack.plugins.hookimpl`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

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


@hookspec
def eulerstack_mixers() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Token mixers: attention and its alternatives. Since 1.0."""


@hookspec
def eulerstack_ffns() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Channel mixers: feed-forward blocks. Since 1.0."""


@hookspec
def eulerstack_norms() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Normalisations. Since 1.0."""


@hookspec
def eulerstack_positions() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Ways to tell positions apart: the words of `embedding.positional`. Since 1.0."""


@hookspec
def eulerstack_residuals() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Rules that join a layer's branches with its input. Since 1.0."""


@hookspec
def eulerstack_heads() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Output heads. Since 1.0."""


@hookspec
def eulerstack_integrators() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Stages that apply a layer several times: the types of a schedule entry's `integrator`. Since 1.0."""


@hookspec
def eulerstack_merges() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """What makes one stream of several: the types of a schedule entry's `merge`. Since 1.0."""


@hookspec
def eulerstack_memories() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Memories beside a mixer, which are written while the model reads. Since 1.0."""


@hookspec
def eulerstack_linears() -> Iterable[Primitive]:  # type: ignore[empty-body]
    """Ways to compute a linear layer, which a namespace may put in the place of one. Since 1.0."""


@hookspec
def eulerstack_schema_fragments() -> Iterable[SchemaFragment]:  # type: ignore[empty-body]
    """Fields added to a section of the language; names must lie in a reserved namespace. Since 1.0."""


@hookspec
def eulerstack_namespaces() -> Iterable[Namespace]:  # type: ignore[empty-body]
    """Handlers of reserved-namespace keys. Since 1.0."""


@hookspec
def eulerstack_rules() -> Iterable[Rule]:  # type: ignore[empty-body]
    """Realism rules of `validate --report`. Since 1.0."""


@hookspec
def eulerstack_presets() -> Iterable[PresetFolder]:  # type: ignore[empty-body]
    """Folders of presets. Since 1.0."""


@hookspec
def eulerstack_messages() -> Iterable[Catalog]:  # type: ignore[empty-body]
    """Translations of the plugin's own messages. Since 1.0."""


@hookspec
def eulerstack_targets() -> Iterable[Target]:  # type: ignore[empty-body]
    """Back ends of `compile`. Since 1.0."""


@hookspec
def eulerstack_importers() -> Iterable[Importer]:  # type: ignore[empty-body]
    """HuggingFace families that `import` reads. Since 1.0."""
