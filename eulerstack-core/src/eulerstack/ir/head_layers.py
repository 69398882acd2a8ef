"""Layers that a head has of its own."""

from __future__ import annotations

from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.types import PrimitiveIR
from eulerstack.plugins.asking import ask
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.primitive import Dims, HeadLayers


def head_layers_of(registry: Registry, dims: Dims, head: PrimitiveIR) -> HeadLayers | None:
    """What a head declares about its layers; None where it has none.

    Errors: CompatibilityError that names its plugin when that fails.
    """
    primitive = primitive_of(registry, "head", head.type)
    if primitive.head_layers is None:
        return None
    return ask(registry, primitive, HeadLayers, primitive.head_layers, dims, head.params)
