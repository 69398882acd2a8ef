"""What plugin authors import: the hook marker, the declarations, the API version."""

from collections.abc import Iterable

from eulerstack.i18n import add_folders
from eulerstack.plugins.hookspecs import API_VERSION, hookimpl
from eulerstack.plugins.memory import MEMORY_WORDS, check_updating, must_update
from eulerstack.plugins.primitive import (
    CacheLayer,
    Catalog,
    Cost,
    Dims,
    Features,
    HeadLayers,
    Held,
    Importer,
    Kernel,
    Linear,
    Namespace,
    PresetFolder,
    Primitive,
    Problem,
    Replacement,
    Rotation,
    Rule,
    SchemaFragment,
    StackRule,
    Target,
    WeightRule,
)
from eulerstack.plugins.scaling import attention_scale

__all__ = [
    "API_VERSION",
    "MEMORY_WORDS",
    "CacheLayer",
    "Catalog",
    "Cost",
    "Dims",
    "Features",
    "HeadLayers",
    "Held",
    "Importer",
    "Kernel",
    "Linear",
    "Namespace",
    "PresetFolder",
    "Primitive",
    "Problem",
    "Replacement",
    "Rotation",
    "Rule",
    "SchemaFragment",
    "StackRule",
    "Target",
    "WeightRule",
    "attention_scale",
    "check_updating",
    "hookimpl",
    "must_update",
]


def _catalog_folders(domain: str) -> Iterable[str]:
    """Where plugins keep the translations of a domain of theirs."""
    from eulerstack.plugins.manager import get_registry

    return [catalog.folder for catalog in get_registry(strict=False).catalogs() if catalog.domain == domain]


def _catalog_domains() -> Iterable[str]:
    """The domains of plugins' catalogs."""
    from eulerstack.plugins.manager import get_registry

    return dict.fromkeys(catalog.domain for catalog in get_registry(strict=False).catalogs())


add_folders(_catalog_folders, _catalog_domains)
