"""The sizes of a model: what follows from the given ones, and the form in which primitives ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eulerstack.plugins.primitive import Dims
from eulerstack.schema import sections
from eulerstack.schema.defaults import complete_words


def complete_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` section with every default filled in, those that follow from other sizes included.

    Total over whatever the schema admits, so that checks can go on after a fault: a width that would be nothing is one
    channel, a head that d_model can't be divided into is as wide as fits.
    """
    model = complete_words(sections.model()["properties"], given)
    if model["n_kv_heads"] is None:
        model["n_kv_heads"] = model["n_heads"]
    if model["head_dim"] is None:
        model["head_dim"] = max(1, model["d_model"] // model["n_heads"])
    if model["d_ff"] is None:
        model["d_ff"] = max(1, round(min(feed_forward_width(model), 2.0**53)))
    return model


def feed_forward_width(model: Mapping[str, Any]) -> float:
    """mlp_ratio * d_model, which `d_ff` is rounded from where the spec leaves it out."""
    return model["mlp_ratio"] * model["d_model"]


# What depends on a layer's width.
WIDTH_SIZES = ("d_model", "head_dim", "d_ff")


def sizes_at_width(model: Mapping[str, Any], d_out: int) -> dict[str, Any]:
    """A complete `model` section for a layer of another width.

    Heads keep their number. Where they share out the model's width, they share out this one; a head of a width of its
    own keeps it. Feed-forward blocks keep their proportion to the width.
    """
    shared = model["head_dim"] * model["n_heads"] == model["d_model"]
    return {
        **model,
        "d_model": d_out,
        "head_dim": max(1, d_out // model["n_heads"]) if shared else model["head_dim"],
        "d_ff": max(1, round(model["d_ff"] * d_out / model["d_model"])),
    }


def dims_at_width(dims: Dims, d_out: int) -> Dims:
    """The sizes of a layer of another width: see `sizes_at_width`."""
    model = sizes_at_width({word: getattr(dims, word) for word in (*WIDTH_SIZES, "n_heads")}, d_out)
    return replace(dims, **{word: model[word] for word in WIDTH_SIZES})


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
