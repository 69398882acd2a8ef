"""What plugin authors import: the hook marker, the declarations, the API version."""

from eulerstack.plugins.hookspecs import API_VERSION, hookimpl
from eulerstack.plugins.primitive import (
    CacheLayer,
    Catalog,
    Cost,
    Dims,
    Importer,
    Kernel,
    Namespace,
    PresetFolder,
    Primitive,
    Problem,
    Rule,
    SchemaFragment,
    Target,
    WeightRule,
)

__all__ = [
    "API_VERSION",
    "CacheLayer",
    "Catalog",
    "Cost",
    "Dims",
    "Importer",
    "Kernel",
    "Namespace",
    "PresetFolder",
    "Primitive",
    "Problem",
    "Rule",
    "SchemaFragment",
    "Target",
    "WeightRule",
    "hookimpl",
]
