"""Which class computes a primitive: here by the plugin registry, in an exported file by a table of its own."""

from importlib import import_module
from typing import Any

from eulerstack.plugins.manager import get_registry


def primitive_class(kind: str, name: str) -> Any:
    """The class that computes primitive `name`. Errors: LookupError when no plugin provides it."""
    module, _, attribute = get_registry().get(kind, name).module.partition(":")
    return getattr(import_module(module), attribute)
