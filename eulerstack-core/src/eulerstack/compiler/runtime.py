"""What runs how: what a primitive keeps while decoding, and which ways to run a model it takes part in.

Everything here follows from declarations: prices, cache slots, features. Nothing is imported but they.
"""

from __future__ import annotations

from dataclasses import dataclass

from eulerstack.compiler.cost import ModelCost
from eulerstack.plugins.primitive import Backend, Cost, Dims, Params, Primitive

# Lengths in tokens far beyond every window, at which a cache that still grows grows with every token.
LONG, LONGER = 1 << 24, 1 << 25
STATE_LAYER_TYPE = "eulerstack_state"


@dataclass(frozen=True)
class Runtime:
    """How a primitive runs with given parameters.

    cache       "per token" (it grows with the sequence), "fixed" (it stops growing), "of its parts" (those of what it
                holds), or "none"
    cached      whether it decodes from a cache, a static one included
    one_graph   whether torch.compile makes one graph of it
    assisted    whether a draft that is refused can be taken back from its cache; None where its parts decide
    refused     the implementations of attention that it can't run with
    kernels     faster implementations that it calls where they are installed
    """

    cache: str
    cached: bool
    one_graph: bool
    assisted: bool | None
    refused: tuple[Backend, ...]
    kernels: tuple[str, ...]


def runtime_of(primitive: Primitive, dims: Dims, params: Params) -> Runtime:
    """How `primitive` runs; `params` are complete."""
    features = primitive.features(dims, params)
    refused = features.unsupported
    if primitive.kind == "position" and primitive.place == "scores":
        refused = ("flash", "flex", "serving")
    kernels = (*(kernel.name for kernel in primitive.kernels), *features.flash_kernels)
    assisted: bool | None = primitive.cached
    if primitive.cache is not None:
        assisted = primitive.cache(params).layer_type != STATE_LAYER_TYPE
    if primitive.holds is not None:
        return Runtime("of its parts", True, primitive.one_graph, None, refused, kernels)
    kept = cache_kind(primitive.cost(dims, params, 2))
    return Runtime(kept, primitive.cached, primitive.one_graph, assisted, refused, kernels)


def cache_kind(cost: Cost) -> str:
    """What the cache of one sequence does as the sequence grows."""
    alone = ModelCost(embedding=0, positions=Cost(), layers=(), final_norm=0, head=Cost(), stages=((cost,),))
    if alone.cache_bytes(LONGER) > alone.cache_bytes(LONG):
        return "per token"
    return "fixed" if alone.cache_bytes(LONG) else "none"
