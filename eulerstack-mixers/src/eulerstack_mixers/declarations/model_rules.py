"""Realism rules about attention, rotation and families of models: what is legal, but seldom meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eulerstack.errors import Finding, Message, msg
from eulerstack.plugins import Rule
from eulerstack_mixers.declarations.places import mixers_of, placed_mixers

CONTEXT_PER_CHANNEL = 128
SCALING_FACTORS = (1, 64)


def _context_width(ir: Any) -> Iterator[Finding]:
    length, width = ir.model["max_seq_len"], ir.model["d_model"]
    reaches_all = any(mixer.type == "attention" and mixer.params["window"] is None for mixer in mixers_of(ir))
    if reaches_all and length > CONTEXT_PER_CHANNEL * width:
        yield Finding(
            "context_width",
            msg("max_seq_len is {ratio} times d_model; global attention this long is rarely wide enough",
                ratio=length // width),
            "model.max_seq_len",
        )  # fmt: skip


def _window(ir: Any) -> Iterator[Finding]:
    length = ir.model["max_seq_len"]
    seen = set()
    for path, mixer in placed_mixers(ir):
        window = mixer.params.get("window") if mixer.type == "attention" else None
        if window is not None and window >= length and path not in seen:
            seen.add(path)
            yield Finding(
                "window",
                msg("a window of {window} covers the whole context of {length}", window=window, length=length),
                f"{path}.attention.window",
                mixer.location,
            )


_FAMILY_CHECKS: dict[str, tuple[tuple[Message, Callable[[Any], bool]], ...]] = {
    "llama": (
        (msg("rotary positions"), lambda ir: ir.position.type == "rope"),
        (msg("rmsnorm"), lambda ir: all(layer.norm.type == "rmsnorm" for layer in ir.layers)),
        (msg("a gated_mlp"), lambda ir: all(layer.ffn.type == "gated_mlp" for layer in ir.layers)),
    ),
    "gpt2": (
        (msg("layernorm"), lambda ir: all(layer.norm.type == "layernorm" for layer in ir.layers)),
        (msg("a plain mlp"), lambda ir: all(layer.ffn.type == "mlp" for layer in ir.layers)),
    ),
    "mistral": ((msg("a window"), lambda ir: any(mixer.params.get("window") for mixer in mixers_of(ir))),),
    "gemma2": ((msg("a window"), lambda ir: any(mixer.params.get("window") for mixer in mixers_of(ir))),),
    "deepseek": ((msg("a latent_dim"), lambda ir: any(mixer.params.get("latent_dim") for mixer in mixers_of(ir))),),
    "qwen3": ((msg("qk_norm"), lambda ir: any(mixer.params.get("qk_norm") == "head" for mixer in mixers_of(ir))),),
    "moe": ((msg("a moe"), lambda ir: any("moe" in layer.ffn.type for layer in ir.layers)),),
    "hybrid": ((msg("two kinds of mixers"), lambda ir: len({mixer.type for mixer in mixers_of(ir)}) > 1),),
    "mamba": ((msg("a mamba mixer"), lambda ir: any("mamba" in mixer.type for mixer in mixers_of(ir))),),
}


def _family_hint(ir: Any) -> Iterator[Finding]:
    words = set(re.split(r"[^a-z0-9]+", (ir.model["family_hint"] or "").lower()))
    for family in sorted(words & set(_FAMILY_CHECKS)):
        for trait, holds in _FAMILY_CHECKS[family]:
            if not holds(ir):
                yield Finding(
                    "family_hint",
                    msg("family_hint says {family}, whose models have {trait}", family=family, trait=trait),
                    "model.family_hint",
                )


def _rope_scaling(ir: Any) -> Iterator[Finding]:
    places = {"embedding.rope_scaling": ir.position.params.get("rope_scaling")}
    for path, mixer in placed_mixers(ir):
        rope = mixer.params.get("rope")
        if isinstance(rope, Mapping) and rope.get("scaling") not in (None, ir.position.params.get("rope_scaling")):
            places[f"{path}.attention.rope.scaling"] = rope["scaling"]
    for path, scaling in places.items():
        factor = scaling.get("factor") if scaling else None
        if factor is None:
            continue
        low, high = SCALING_FACTORS
        if factor == low:
            yield Finding("rope_scaling", msg("a factor of 1 changes nothing"), path)
        elif factor > high:
            what = msg("a factor of {factor} stretches positions further than published models do", factor=factor)
            yield Finding("rope_scaling", what, path)
        original, length = scaling.get("original_max_seq_len"), ir.model["max_seq_len"]
        if original is not None and original * factor < length and original != length:
            yield Finding(
                "rope_scaling",
                msg("{original} tokens times {factor} do not reach max_seq_len {length}",
                    original=original, factor=factor, length=length),
                path,
            )  # fmt: skip


ROTATING = {"attention", "retnet"}
STANDING = {"mamba", "hyena", "ttt_layer"}


def _rotation(ir: Any) -> Iterator[Finding]:
    """Rotary words that reach no layer, or fewer layers than their author may think."""
    types = {mixer.type for mixer in mixers_of(ir)}
    if ir.position.type != "rope" or not types <= ROTATING | STANDING:
        return
    if not any(mixer.params["rope"] for mixer in mixers_of(ir) if mixer.type in ROTATING):
        yield Finding("rotation", msg("no layer rotates, so positional: rope changes nothing"), "embedding.positional")
        return
    seen = set()
    words = {"rope_scaling": None, "rope_partial_factor": 1.0, "rope_interleaved": False}
    said = [word for word, plain in words.items() if ir.position.params[word] != plain]
    for path, mixer in placed_mixers(ir):
        if said and mixer.type == "retnet" and mixer.params["rope"] and path not in seen:
            seen.add(path)
            yield Finding(
                "rotation",
                msg("retention rotates by rope_theta alone; {words} do not reach it", words=", ".join(said)),
                f"{path}.retnet.rope",
                mixer.location,
            )


MODEL_RULES = (
    Rule("context_width", "the context is not out of proportion to d_model", _context_width),
    Rule("window", "a window is shorter than the context", _window),
    Rule("family_hint", "the model has what family_hint promises", _family_hint),
    Rule("rotation", "the embedding's rotary words reach the layers", _rotation),
    Rule("rope_scaling", "rope_scaling stretches positions by a usual factor, far enough", _rope_scaling),
)
