"""Retention: alone, in chunks that don't divide the input, with shared keys, beside attention."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.specs import changed, tiny_spec

MIXER = "layer_templates.decoder.mixer"
RETNET = f"{MIXER}.retnet"


def spec(**params: Any) -> dict[str, Any]:
    """The tiny spec with retention in every layer; chunks of 5 tokens unless told otherwise."""
    return changed(tiny_spec(), {MIXER: {"type": "retnet", "retnet": {"chunk_size": 5, **params}}})


def _hybrid() -> dict[str, Any]:
    hybrid = spec()
    ffn = {"type": "gated_mlp"}
    hybrid["layer_templates"] |= {
        "near": {"mixer": {"type": "attention", "attention": {"window": 4}}, "ffn": ffn},
        "global": {"mixer": {"type": "attention", "attention": {"rope": False}}, "ffn": ffn},
    }
    hybrid["layer_schedule"] = [{"template": name} for name in ("decoder", "near", "global", "decoder")]
    return hybrid


VARIANTS = {
    "retnet": spec(),
    "retnet_parallel": spec(chunkwise=False, chunk_size=None),
    "retnet_many_heads": changed(spec(chunk_size=4), {"model.n_kv_heads": 3}),
    "retnet_one_layer": changed(spec(chunk_size=1), {"layer_schedule.0.repeat": 1}),
    "retnet_head_dim": changed(spec(value_factor=1.5), {"model.head_dim": 10}),
    "retnet_narrow_values": spec(value_factor=0.75, gate=False),
    "retnet_unrotated": changed(spec(rope=False), {"embedding.positional": "none"}),
    "retnet_theta": changed(spec(), {"embedding.rope_theta": 50.0}),
    "retnet_parallel_residual": changed(spec(), {"layer_templates.decoder.residual": {"type": "parallel"}}),
    "retnet_hybrid": _hybrid(),
}
WITHOUT_ATTENTION = set(VARIANTS) - {"retnet_hybrid"}


def _case(effect: str, **params: Any) -> Case:
    return Case(
        effect,
        {f"{RETNET}.{word}": value for word, value in params.items()},
        {MIXER: spec()["layer_templates"]["decoder"]["mixer"]},
    )


CASES: dict[str, Case] = {
    # The same function by another computation: what changes is what a prompt costs.
    "mixer.retnet.chunkwise": _case("cost", chunkwise=False, chunk_size=None),
    "mixer.retnet.chunk_size": _case("cost", chunk_size=9),
    "mixer.retnet.rope": _case("function", rope=False),
    "mixer.retnet.value_factor": _case("parameters", value_factor=1.5),
    "mixer.retnet.gate": _case("parameters", gate=False),
}
