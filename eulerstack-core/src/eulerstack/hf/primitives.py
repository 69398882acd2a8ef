"""Which class computes a primitive: here by the plugin registry, in an exported file by a table of its own."""

from importlib import import_module
from typing import Any

from eulerstack.plugins.asking import ask
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import Primitive


def primitive_class(kind: str, node: dict[str, Any]) -> Any:
    """The class that computes a node of the architecture, {"type", "params"}.

    Errors: LookupError when no plugin provides it; CompatibilityError that names a third party's plugin whose class
    can't be imported.
    """
    registry = get_registry()
    primitive = registry.get(kind, node["type"])
    if registry.is_own(primitive):
        return _imported(primitive, node)
    return ask(registry, primitive, type, _imported, primitive, node)


def _imported(primitive: Primitive, node: dict[str, Any]) -> Any:
    module, _, attribute = primitive.class_path(node.get("params", {})).partition(":")
    return getattr(import_module(module), attribute)
