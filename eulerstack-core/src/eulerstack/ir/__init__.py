"""The intermediate representation: types, the way into it from a spec, and the ways out as text and JSON."""

from eulerstack.ir.dims import dims_of
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.printer import from_data, print_ir, to_data, to_spec
from eulerstack.ir.types import (
    FrozenMapping,
    IntegratorIR,
    LayerIR,
    ModelIR,
    NormIR,
    ParallelIR,
    PrimitiveIR,
    Stage,
    StreamIR,
    freeze,
    thaw,
)

__all__ = [
    "FrozenMapping",
    "IntegratorIR",
    "LayerIR",
    "ModelIR",
    "NormIR",
    "ParallelIR",
    "PrimitiveIR",
    "Stage",
    "StreamIR",
    "dims_of",
    "freeze",
    "from_data",
    "normalize_to_ir",
    "print_ir",
    "thaw",
    "to_data",
    "to_spec",
]
