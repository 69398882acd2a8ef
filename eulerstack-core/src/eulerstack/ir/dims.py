"""The sizes of a model's IR, as primitives ask for them."""

from __future__ import annotations

from eulerstack.ir.types import ModelIR
from eulerstack.plugins import Dims
from eulerstack.schema.sizes import dims_from


def dims_of(ir: ModelIR) -> Dims:
    """`Dims` of a model."""
    return dims_from(ir.model, ir.position.type)
