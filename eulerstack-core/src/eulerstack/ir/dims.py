"""The sizes of a model's IR, as primitives ask for them."""

from __future__ import annotations

from eulerstack.ir.types import FrozenMapping, LayerIR, ModelIR
from eulerstack.plugins import Dims
from eulerstack.schema.sizes import dims_from, sizes_at_width


def dims_of(ir: ModelIR) -> Dims:
    """`Dims` of a model."""
    return dims_from(ir.model, ir.position.type)


def layer_sizes(ir: ModelIR, layer: LayerIR) -> FrozenMapping:
    """The `model` section as the parts of a layer see it, whose width may be another."""
    if layer.shape_change is None:
        return ir.model
    return FrozenMapping(sizes_at_width(ir.model, layer.shape_change["d_out"]))


def layer_dims(ir: ModelIR, layer: LayerIR) -> Dims:
    """`Dims` of a layer's parts."""
    return dims_from(layer_sizes(ir, layer), ir.position.type)
