"""The combinations that decoding, causality and references are tested on: every primitive, alone and mixed."""

from __future__ import annotations

from typing import Any

from tests.model.mixers import modules
from tests.model.specs import changed, tiny_spec

ATTENTION = "layer_templates.decoder.mixer.attention"
NORM = "layer_templates.decoder.norm"
RESIDUAL = "layer_templates.decoder.residual"


def _mixed_windows() -> dict[str, Any]:
    spec = tiny_spec()
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {
        "near": {"mixer": {"type": "attention", "attention": {"window": 4}}, "ffn": ffn},
        "far": {"mixer": {"type": "attention", "attention": {"window": 9, "rope": {"theta": 77.0}}}, "ffn": ffn},
        "global": {"mixer": {"type": "attention", "attention": {"rope": False}}, "ffn": {"type": "mlp"}},
    }
    spec["layer_schedule"] = [{"template": name} for name in ("near", "global", "far", "near")]
    return spec


def _variants() -> dict[str, dict[str, Any]]:
    base = tiny_spec()
    variants = {
        "plain": base,
        "multi_head": changed(base, {"model.n_kv_heads": 3}),
        "one_layer": changed(base, {"layer_schedule.0.repeat": 1}),
        "head_dim": changed(base, {"model.head_dim": 10}),
        "biases": changed(base, {f"{ATTENTION}.qkv_bias": True, f"{ATTENTION}.o_bias": True}),
        "window": changed(base, {f"{ATTENTION}.window": 5}),
        "mixed_windows": _mixed_windows(),
        "softcap": changed(base, {f"{ATTENTION}.softcap": 2.0}),
        "scale": changed(base, {f"{ATTENTION}.scale": 0.5}),
        "qk_norm_head": changed(base, {f"{ATTENTION}.qk_norm": "head"}),
        "qk_norm_full": changed(base, {f"{ATTENTION}.qk_norm": "full"}),
        "rope_partial": changed(base, {"embedding.rope_partial_factor": 0.5}),
        "rope_interleaved": changed(base, {"embedding.rope_interleaved": True}),
        "rope_partial_interleaved": changed(
            base, {"embedding.rope_partial_factor": 0.67, "embedding.rope_interleaved": True}
        ),
        "yarn": changed(base, {"embedding.rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16}}),
        "llama3": changed(
            base, {"embedding.rope_scaling": {"type": "llama3", "factor": 8.0, "original_max_seq_len": 16}}
        ),
        "linear": changed(base, {"embedding.rope_scaling": {"type": "linear", "factor": 2.0}}),
        # Within the original length these two are the functions that any position sees; beyond it they depend on the
        # length of the whole input by definition (docs/decisions).
        "dynamic": changed(base, {"embedding.rope_scaling": {"type": "dynamic", "factor": 4.0}}),
        "longrope": changed(
            base,
            {
                "embedding.rope_scaling": {
                    "type": "longrope",
                    "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
                    "long_factor": [4.0] * 6,
                    "original_max_seq_len": 32,
                }
            },
        ),
        "alibi": changed(base, {"embedding.positional": "alibi"}),
        "alibi_window": changed(base, {"embedding.positional": "alibi", f"{ATTENTION}.window": 5}),
        "learned": changed(base, {"embedding.positional": "learned"}),
        "no_positions": changed(base, {"embedding.positional": "none"}),
        "layernorm": changed(base, {NORM: {"type": "layernorm"}}),
        "zero_centered": changed(base, {NORM: {"type": "rmsnorm", "zero_centered": True}}),
        "mlp": changed(base, {"layer_templates.decoder.ffn": {"type": "mlp", "activation": "relu2", "bias": True}}),
        "untied": changed(base, {"head.tie_weights": False}),
        "capped_logits": changed(base, {"head.logit_softcap": 3.0, "head.logit_scale": 0.7}),
        "scaled_embedding": changed(base, {"embedding.scale": "sqrt_d_model"}),
        "phases": changed(
            base, {"execution_modes": [{"name": "draft", "max_tokens": 3}, {"name": "answer", "max_tokens": 60}]}
        ),
        "scaled_residual": changed(base, {f"{RESIDUAL}.scaling": 0.4, "model.residual_multiplier": 0.6}),
    }
    for residual in ("sequential", "parallel"):
        for position in ("pre", "post", "output", "sandwich"):
            variants[f"{residual}_{position}"] = changed(
                base, {f"{RESIDUAL}.type": residual, f"{NORM}.position": position}
            )
    return variants


FAMILIES = [_variants(), *(mixer.VARIANTS for mixer in modules())]
VARIANTS = {name: spec for family in FAMILIES for name, spec in family.items()}
FEW = {name for family in FAMILIES for name in list(family)[::4]}
EAGER_ONLY = {"softcap"} | {name for mixer in modules() for name in getattr(mixer, "EAGER_ONLY", ())}
# Variants without attention run the same code under every implementation.
WITHOUT_ATTENTION = {name for mixer in modules() for name in getattr(mixer, "WITHOUT_ATTENTION", ())}
# Parts of parameters' names by which a module is known that only chooses or watches: it has no gradient of logits.
CHOOSING = {part for mixer in modules() for part in getattr(mixer, "CHOOSING", ())}
# A Fourier transform mixes the rounding of all tokens, and a grouped product's depends on the number of its rows, so
# that their past is equal at float tolerance only.
TRANSFORMED = {name for mixer in modules() for name in getattr(mixer, "TRANSFORMED", ())}
# Variants whose layers keep what has no fixed size.
WITHOUT_STATIC = {name for mixer in modules() for name in getattr(mixer, "WITHOUT_STATIC", ())}


def implementations(name: str) -> tuple[str, ...]:
    """The attention implementations that a variant runs with on a CPU."""
    if name in EAGER_ONLY:
        return ("eager",)
    return ("sdpa",) if name in WITHOUT_ATTENTION else ("eager", "sdpa")


CASES = [(name, implementation) for name in VARIANTS for implementation in implementations(name)]
