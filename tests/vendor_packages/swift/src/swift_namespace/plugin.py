"""The key `vendor.swift.low_rank`: linear layers as a product of two thin matrices. Imports no torch.

At compile time it changes the model, and writes into config.json what was saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Linear, Namespace, Primitive, Problem, Replacement, hookimpl
from eulerstack.plugins.primitive import Params

SCHEMA = {
    "type": "object",
    "required": ["rank"],
    "properties": {
        "rank": {"type": "integer", "minimum": 1, "description": "Channels between the two matrices."},
        "names": {"type": "array", "items": {"type": "string"}, "default": ["up_proj"], "description": "Which ones."},
    },
    "additionalProperties": False,
}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """Two thin matrices."""
    weights = params["rank"] * (params["in_features"] + params["out_features"])
    return Cost(params=weights, flops_per_token=2 * weights)


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Low means lower than both widths; biases are left to others."""
    if params["rank"] >= min(params["in_features"], params["out_features"]) or params["bias"]:
        what, fix = Message("this layer can't have a low rank"), Message("Type a smaller rank")
        yield Problem("rank", what, fix, "writing-a-plugin.md")


def replaces(value: Mapping[str, Any], linears: Sequence[Linear]) -> dict[str, Replacement]:
    """Those of the names given."""
    return {
        linear.name: Replacement("vendor.swift.thin", {"rank": value["rank"]})
        for linear in linears
        if linear.name.rpartition(".")[2] in value["names"]
    }


def compile_low_rank(value: dict[str, Any], path: str, ir: Any) -> dict[str, Any]:
    """Notes which model it was."""
    return {**value, "of": ir.model["name"]}


@hookimpl
def eulerstack_linears() -> list[Primitive]:
    """The linear layer `vendor.swift.thin`."""
    return [
        Primitive(
            name="vendor.swift.thin",
            kind="linear",
            summary="two thin matrices",
            cost=cost,
            checks=checks,
            module="swift_namespace.module:SwiftThin",
        )
    ]


@hookimpl
def eulerstack_namespaces() -> list[Namespace]:
    """The key `vendor.swift.low_rank`."""
    return [
        Namespace(
            key="vendor.swift.low_rank",
            schema=SCHEMA,
            summary="linear layers of a low rank",
            compile="swift_namespace.plugin:compile_low_rank",
            replaces=replaces,
        )
    ]
