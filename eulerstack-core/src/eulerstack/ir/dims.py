"""The sizes of a model, as primitives ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.ir.types import ModelIR
from eulerstack.plugins import Dims


def dims_from(model: Mapping[str, Any], positional: str) -> Dims:
    """`Dims` of a complete `model` section."""
    return Dims(
        d_model=model["d_model"],
        n_heads=model["n_heads"],
        n_kv_heads=model["n_kv_heads"],
        head_dim=model["head_dim"],
        d_ff=model["d_ff"],
        vocab_size=model["vocab_size"],
        max_seq_len=model["max_seq_len"],
        norm_eps=model["norm_eps"],
        positional=positional,
    )


def dims_of(ir: ModelIR) -> Dims:
    """`Dims` of a model."""
    return dims_from(ir.model, ir.embedding["positional"])
