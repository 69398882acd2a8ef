"""The linear layer `vendor.toy.blocks`, and the key that puts it in the place of others. Imports no torch.

Its matrix is block-diagonal: a block of the outputs sees the block of the inputs at the same place and nothing else.

Cost: parameters in·out / blocks, plus out with a bias; FLOPs per token 2·in·out / blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eulerstack.errors import Message
from eulerstack.plugins import Cost, Dims, Linear, Namespace, Primitive, Problem, Replacement
from eulerstack.plugins.primitive import Params


def checks(dims: Dims, params: Params) -> Iterator[Problem]:
    """Both widths are shared out among the blocks."""
    blocks = params["blocks"]
    for width in (params["in_features"], params["out_features"]):
        if width % blocks:
            values = (("width", width), ("blocks", blocks))
            yield Problem(
                "",
                Message("a width of {width} can't be shared out among {blocks} blocks", values, "eulerstack_toy"),
                Message("Type a number that divides the widths, such as 2", (), "eulerstack_toy"),
                "writing-a-plugin.md#a-namespace-that-replaces-linear-layers",
            )


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The blocks, and the bias."""
    weights = params["in_features"] * params["out_features"] // params["blocks"]
    return Cost(params=weights + (params["out_features"] if params["bias"] else 0), flops_per_token=2 * weights)


BLOCKS = Primitive(
    name="vendor.toy.blocks",
    kind="linear",
    summary="block-diagonal matrix",
    checks=checks,
    cost=cost,
    module="eulerstack_toy.modules.linear:ToyBlocks",
    reference="eulerstack_toy.reference.kinds:naive_blocks",
)


def replaces(value: Mapping[str, Any], linears: Sequence[Linear]) -> dict[str, Replacement]:
    """Those whose modules' names end in one of the names given."""
    return {
        linear.name: Replacement("vendor.toy.blocks", {"blocks": value["blocks"]})
        for linear in linears
        if linear.name.rpartition(".")[2] in value["names"]
    }


BLOCK_DIAGONAL = Namespace(
    key="vendor.toy.block_diagonal",
    schema={
        "type": ["object", "integer"],
        "properties": {
            "blocks": {"type": "integer", "minimum": 1, "default": 2, "description": "Blocks on the diagonal."},
            "names": {
                "type": "array",
                "items": {"type": "string"},
                "default": ["up_proj"],
                "description": "Which linear layers have them.",
            },
        },
    },
    summary="linear layers that are block-diagonal",
    resolve=lambda value: value if isinstance(value, Mapping) else {"blocks": value},
    replaces=replaces,
)
