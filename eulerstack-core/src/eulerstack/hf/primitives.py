"""Which class computes a primitive: here by the plugin registry, in an exported file by a table of its own."""

from importlib import import_module
from typing import Any

from eulerstack.plugins.manager import get_registry


def primitive_class(kind: str, node: dict[str, Any]) -> Any:
    """The class that computes a node of the architecture, {"type", "params"}.

    Errors: LookupError when no plugin provides it.
    """
    primitive = get_registry().get(kind, node["type"])
    module, _, attribute = primitive.class_path(node.get("params", {})).partition(":")
    return getattr(import_module(module), attribute)
