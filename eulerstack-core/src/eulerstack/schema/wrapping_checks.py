"""What contradicts what in the words for what is wrapped around a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import Collector, msg
from eulerstack.plugins.primitive import CacheLayer

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
