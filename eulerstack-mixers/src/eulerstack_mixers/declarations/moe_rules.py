"""Realism rules about mixtures of experts: what is legal, but seldom meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, msg
from eulerstack.plugins import Rule

# Published models lie between 1 expert of 4 (Mixtral) and 1 of 128 (Llama 4); Switch went to 1 of 2048.
LEAST_RATIO, MOST_RATIO = 2, 512
# DeepSeek-V4 hashes in 3 of its layers, the first ones.
HASHED_LAYERS, HASHED_SHARE = 3, 4


def _mixtures(ir: Any) -> Iterator[tuple[int, Any, str]]:
    """(index, layer, path of its ffn) of the first layer of each template that has experts."""
    seen = set()
    for index, layer in enumerate(ir.layers):
        if layer.ffn.type == "moe" and layer.template not in seen:
            seen.add(layer.template)
            yield index, layer, f"layer_templates.{layer.template}.ffn"


def _experts(ir: Any) -> Iterator[Finding]:
    for _, layer, path in _mixtures(ir):
        experts, top_k = layer.ffn.params["experts"], layer.ffn.params["top_k"]
        if experts < LEAST_RATIO * top_k:
            what = msg("a token passes through {top_k} of {experts} experts, for which one wide unit would do",
                       top_k=top_k, experts=experts)  # fmt: skip
            yield Finding("experts", what, f"{path}.top_k", layer.ffn.location)
        elif experts > MOST_RATIO * top_k:
            what = msg("a token passes through {top_k} of {experts} experts, fewer than in published models",
                       top_k=top_k, experts=experts)  # fmt: skip
            yield Finding("experts", what, f"{path}.experts", layer.ffn.location)


def _capacity(ir: Any) -> Iterator[Finding]:
    for _, layer, path in _mixtures(ir):
        params = layer.ffn.params
        factor, ratio = params["capacity_factor"], params["experts"] / params["top_k"]
        if factor is None:
            continue
        if factor < 1:
            what = msg("a capacity_factor of {factor} leaves tokens out even where the load is even", factor=factor)
        elif factor >= ratio:
            what = msg("a capacity_factor of {factor} is never reached, because experts / top_k is {ratio}",
                       factor=factor, ratio=round(ratio, 2))  # fmt: skip
        else:
            continue
        yield Finding("capacity", what, f"{path}.capacity_factor", layer.ffn.location)


def _hash_routing(ir: Any) -> Iterator[Finding]:
    number = len(ir.layers)
    limit = max(HASHED_LAYERS, number // HASHED_SHARE)
    seen = set()
    for index, layer in enumerate(ir.layers):
        hashed = layer.ffn.type == "moe" and layer.ffn.params["routing"]["type"] == "hash"
        if hashed and index >= limit and layer.template not in seen:
            seen.add(layer.template)
            what = msg("layer {index} of {number} chooses experts by a hash, which suits the first {limit} alone",
                       index=index, number=number, limit=limit)  # fmt: skip
            yield Finding(
                "hash_routing", what, f"layer_templates.{layer.template}.ffn.routing.type", layer.ffn.location
            )


MOE_RULES = (
    Rule("experts", "a token passes through some of the experts, in the ratio of published models", _experts),
    Rule("capacity", "capacity_factor leaves room for an even load, and sets a limit", _capacity),
    Rule("hash_routing", "experts are chosen by a hash in the first layers only", _hash_routing),
)
