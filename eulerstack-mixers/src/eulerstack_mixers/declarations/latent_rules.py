"""Realism rules about latent attention: what is legal, but seldom meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eulerstack.errors import Finding, msg
from eulerstack.plugins import Rule
from eulerstack_mixers.declarations.compressed_attention import shares_keys
from eulerstack_mixers.declarations.places import mixers_of, placed_mixers

# Published models lie between 1/14 (DeepSeek-V3, 512 of 7168) and 1/2 of d_model.
LEAST_SHARE = 32


def _latent_mixers(ir: Any) -> Iterator[tuple[str, Any]]:
    """Where a spec has attention with a latent, each place once: its path, the mixer."""
    seen = set()
    for path, mixer in placed_mixers(ir):
        if mixer.type == "attention" and mixer.params["latent_dim"] and path not in seen:
            seen.add(path)
            yield path, mixer


def _latent_dim(ir: Any) -> Iterator[Finding]:
    width, elements = ir.model["d_model"], 2 * ir.model["n_heads"] * ir.model["head_dim"]
    for place, mixer in _latent_mixers(ir):
        params = mixer.params
        path = f"{place}.attention.latent_dim"
        kept = params["latent_dim"] + params["rope_head_dim"]
        if params["latent_dim"] * LEAST_SHARE < width:
            what = msg("latent_dim {latent_dim} is less than d_model / {share}, narrower than in published models",
                       latent_dim=params["latent_dim"], share=LEAST_SHARE)  # fmt: skip
            yield Finding("latent_dim", what, path, mixer.location)
        elif kept >= elements:
            what = msg("the cache keeps {kept} numbers a token, where plain attention keeps {plain}",
                       kept=kept, plain=elements)  # fmt: skip
            yield Finding("latent_dim", what, path, mixer.location)


def _latent_groups(ir: Any) -> Iterator[Finding]:
    mixers = mixers_of(ir)
    attention = [mixer.params for mixer in mixers if mixer.type == "attention"]
    groups = ir.model["n_kv_heads"]
    if groups == ir.model["n_heads"] or len(attention) != len(mixers):
        return
    if all(params["latent_dim"] for params in attention):
        what = msg("n_kv_heads has no part in latent attention, where every head has keys of its own")
        yield Finding("latent_groups", what, "model.n_kv_heads")
    elif groups != 1 and all(params["latent_dim"] or shares_keys(params) for params in attention):
        what = msg("n_kv_heads has no part in compressed attention, where all heads share one key")
        yield Finding("latent_groups", what, "model.n_kv_heads")


LATENT_RULES = (
    Rule("latent_dim", "latent_dim compresses, but not beyond what published models do", _latent_dim),
    Rule("latent_groups", "n_kv_heads is given only where some layer groups its keys", _latent_groups),
)
