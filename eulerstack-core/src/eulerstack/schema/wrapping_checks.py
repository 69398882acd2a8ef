"""What contradicts what in the words for what is wrapped around a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import Collector, msg
from eulerstack.plugins.primitive import CacheLayer
from eulerstack.schema.parts import Part, Parts

SEE_WIDTH = "reference/errors.md#width"
SEE_GATING = "reference/errors.md#depth-gating"
# Caches from which the tokens that pass a layer by can be left out.
GATED_TYPES = ("full_attention", "sliding_attention", "eulerstack_state")
GATED_PREFIXES = ("eulerstack_sliding_", "eulerstack_dilated_")


def check_depth_gating(
    entry: Mapping[str, Any], caches: Mapping[str, CacheLayer], path: str, problems: Collector
) -> None:
    """That every mixer of the entry's layers, by name, keeps something that tokens can be left out of."""
    gating = entry.get("depth_gating")
    if gating is None or gating.get("enabled") is False:
        return
    for mixer, cache in caches.items():
        if cache.layer_type not in GATED_TYPES and not cache.layer_type.startswith(GATED_PREFIXES):
            problems.add(
                f"{path}.depth_gating",
                msg("{mixer} keeps a cache from which no token can be left out ({cache})", mixer=mixer,
                    cache=cache.layer_type),
                msg("Delete depth_gating, or use a template with another mixer"),
                SEE_GATING,
            )  # fmt: skip


def check_shape_change(
    template: Mapping[str, Any], parts: Parts, layer: Mapping[str, Part], path: str, problems: Collector
) -> None:
    """That a template's width can be shared out among its heads, and that nothing in it asks for the model's width."""
    change = template.get("shape_change")
    if change is None:
        return
    heads, width = parts.model["n_heads"], change["d_out"]
    if parts.model["head_dim"] * heads == parts.model["d_model"] and width % heads:
        problems.add(
            f"{path}.shape_change.d_out",
            msg("d_out {d_out} can't be divided by n_heads {n_heads}", d_out=width, n_heads=heads),
            msg("Type d_out: {d_out}", d_out=max(1, round(width / heads)) * heads),
            SEE_WIDTH,
        )
    if "memory" in layer:
        problems.add(
            f"{path}.shape_change",
            msg("a memory learns from hidden states of the model's width, which this layer doesn't have"),
            msg("Delete shape_change, or memory"),
            SEE_WIDTH,
        )
    residual = layer.get("residual")
    if residual is None:
        return
    primitive, params = residual.primitive, residual.params
    streams = parts.guarded(primitive, residual.path, lambda: int(primitive.streams(params)))
    if streams is not None and streams > 1:
        problems.add(
            f"{path}.shape_change",
            msg("{residual} keeps {streams} streams of the model's width, which a layer of another width can't join",
                residual=primitive.name, streams=streams),
            msg("Delete shape_change, or use another residual"),
            SEE_WIDTH,
        )  # fmt: skip


def is_wrapped(entry: Mapping[str, Any], template: Mapping[str, Any]) -> bool:
    """Whether something stands between the layers of an entry and the stream, so that their norms don't reach it."""
    gating = entry.get("depth_gating")
    gated = gating is not None and gating.get("enabled") is not False
    return gated or template.get("shape_change") is not None
