"""The columns of a model with their layers: what `tissue` adds to config.json and to `explain`."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from eulerstack.ir.types import ModelIR, thaw


def tissue_map(ir: ModelIR) -> dict[str, Any] | None:
    """The spec's columns, each with the indices of its layers, and the edges between columns; None without `tissue`.

    `edges` are pairs (from, to) of indices into `columns`, in order.
    """
    if not ir.tissue:
        return None
    columns = [
        {
            **thaw(column),
            "layers": [index for index, layer in enumerate(ir.layers) if layer.template in column["templates"]],
        }
        for column in ir.tissue["columns"]
    ]
    connectivity = ir.tissue["connectivity"]
    return {"connectivity": connectivity, "columns": columns, "edges": column_edges(connectivity, len(columns))}


def column_edges(connectivity: str, count: int) -> list[list[int]]:
    """Which of `count` columns leads to which; a column never leads to itself."""
    if connectivity == "full":
        return [list(pair) for pair in permutations(range(count), 2)]
    chain = [[index, index + 1] for index in range(count - 1)] if connectivity in ("ring", "feedforward") else []
    if connectivity == "ring" and count > 1:
        chain.append([count - 1, 0])
    return chain
