"""The realism rule `toy_forgets_late`: an average that outlasts the context never forgets anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, Message
from eulerstack.plugins import Rule


def forgets_late(ir: Any) -> Iterator[Finding]:
    """A finding for every template whose half-life is longer than the context."""
    length, seen = ir.model["max_seq_len"], set()
    for layer in ir.layers:
        half_life = layer.mixer.params.get("half_life") if layer.mixer.type == "vendor.toy.ema" else None
        if half_life is not None and half_life > length and layer.template not in seen:
            seen.add(layer.template)
            values = (("half_life", half_life), ("length", length))
            yield Finding(
                "toy_forgets_late",
                Message("a half-life of {half_life} outlasts the context of {length} tokens", values, "eulerstack_toy"),
                f"layer_templates.{layer.template}.mixer.vendor.toy.ema.half_life",
                layer.mixer.location,
            )


FORGETS_LATE = Rule("toy_forgets_late", "the half-life of vendor.toy.ema is shorter than the context", forgets_late)
