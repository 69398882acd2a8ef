"""The words of rotary positions that `embedding` and an attention block share: scaling rules and their contradictions.

Source: RoPE, Su et al. 2021, arXiv:2104.09864; linear, Chen et al. 2023, arXiv:2306.15595; dynamic NTK and YaRN, Peng
et al. 2023, arXiv:2309.00071; LongRoPE, Ding et al. 2024, arXiv:2402.13753; llama3, Llama team 2024, arXiv:2407.21783.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Problem
from eulerstack_mixers.declarations.words import Schema, boolean, integer, number

SEE = "reference/errors.md#rope"

FACTOR = number("How many times the trained context is stretched.", minimum=1)
ATTENTION_FACTOR = number(
    "Factor on the cosines and sines, so that its square falls on the attention scores; null: computed by the rule.",
    None,
    nullable=True,
    exclusiveMinimum=0,
)
FACTOR_LIST: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "number", "exclusiveMinimum": 0},
}


def _original(default: bool, minimum: int = 1) -> Schema:
    text = "Context length in tokens that the unscaled positions were trained for"
    if default:
        return integer(f"{text}; null: model.max_seq_len.", None, nullable=True, minimum=1)
    return integer(f"{text}.", minimum=minimum)


SCALING_WORDS: dict[str, Schema] = {
    "linear": {"factor": FACTOR},
    "dynamic": {"factor": FACTOR, "original_max_seq_len": _original(True)},
    "yarn": {
        "factor": FACTOR,
        "original_max_seq_len": _original(True),
        "beta_fast": number(
            "Rotations over the original context above which a frequency is left as it is.", 32.0, exclusiveMinimum=0
        ),
        "beta_slow": number(
            "Rotations over the original context below which a frequency is fully divided.", 1.0, exclusiveMinimum=0
        ),
        "mscale": number(
            "Numerator's slope in attention_factor's formula; goes together with mscale_all_dim.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "mscale_all_dim": number(
            "Denominator's slope in attention_factor's formula; goes together with mscale.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "attention_factor": ATTENTION_FACTOR,
        "truncate": boolean("Whether the bounds of the ramp between the two regimes are rounded outwards.", True),
    },
    "longrope": {
        "short_factor": {
            **FACTOR_LIST,
            "description": "Divisor of each frequency up to original_max_seq_len; one number per rotated pair.",
        },
        "long_factor": {
            **FACTOR_LIST,
            "description": "Divisor of each frequency beyond original_max_seq_len; one number per rotated pair.",
        },
        "original_max_seq_len": _original(False, minimum=2),
        "factor": number(
            "Stretch from which attention_factor is computed; null: model.max_seq_len / original_max_seq_len.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "attention_factor": ATTENTION_FACTOR,
    },
    "llama3": {
        "factor": FACTOR,
        "low_freq_factor": number(
            "Wavelengths above original_max_seq_len / low_freq_factor are fully divided.", 1.0, exclusiveMinimum=0
        ),
        "high_freq_factor": number(
            "Wavelengths below original_max_seq_len / high_freq_factor are left as they are.", 4.0, exclusiveMinimum=0
        ),
        "original_max_seq_len": _original(False),
    },
}


def _branch(name: str, words: Schema) -> Schema:
    """The words that apply when `type` is `name`."""
    return {
        "if": {"required": ["type"], "properties": {"type": {"const": name}}},
        "then": {
            "properties": {"type": {}, **words},
            "required": [word for word, schema in words.items() if "default" not in schema],
            "additionalProperties": False,
        },
    }


def scaling_schema(description: str) -> Schema:
    """The schema of a scaling mapping, or null; without a default, which depends on the place."""
    return {
        "type": ["object", "null"],
        "description": description,
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": list(SCALING_WORDS), "description": "The rule of the scaling."}
        },
        "allOf": [_branch(name, words) for name, words in SCALING_WORDS.items()],
    }


def resolve_scaling(scaling: Mapping[str, Any] | None, max_seq_len: int) -> Mapping[str, Any] | None:
    """`scaling` with the lengths filled in that follow from `max_seq_len` (tokens)."""
    if scaling is None:
        return None
    filled = dict(scaling)
    if "original_max_seq_len" in filled and filled["original_max_seq_len"] is None:
        filled["original_max_seq_len"] = max_seq_len
    if filled["type"] == "longrope" and filled["factor"] is None and filled["attention_factor"] is None:
        filled["factor"] = max_seq_len / filled["original_max_seq_len"]
    return filled


def rotated_width(head_dim: int, partial_factor: float) -> int:
    """Channels of a head that rotate; the rest pass through."""
    return int(head_dim * partial_factor)


def check_rope(
    head_dim: int,
    theta: float,
    partial_factor: float,
    scaling: Mapping[str, Any] | None,
    factor_path: str,
    scaling_path: str,
) -> Iterator[Problem]:
    """Problems of one set of rotary words; the two paths say where it is written."""
    rotated = rotated_width(head_dim, partial_factor)
    if rotated < 2 or rotated % 2:
        yield Problem(
            factor_path,
            msg(
                "{rotated} of {head_dim} channels per head would rotate, but channels rotate in pairs",
                rotated=rotated,
                head_dim=head_dim,
            ),
            msg("choose head_dim and the factor so that int(head_dim * factor) is even and at least 2"),
            SEE,
        )
        return
    if scaling is not None:
        yield from _check_scaling(rotated, theta, scaling, scaling_path)


def _check_scaling(rotated: int, theta: float, scaling: Mapping[str, Any], path: str) -> Iterator[Problem]:
    kind = scaling["type"]
    if kind == "dynamic" and rotated < 4:
        yield Problem(
            path,
            msg(
                "dynamic scaling divides by the rotated width minus 2, and the rotated width is {rotated}",
                rotated=rotated,
            ),
            msg("rotate at least 4 channels per head, or use another scaling type"),
            SEE,
        )
    if kind == "longrope":
        for word in ("short_factor", "long_factor"):
            if len(scaling[word]) != rotated // 2:
                yield Problem(
                    f"{path}.{word}",
                    msg(
                        "the list holds {given} numbers for {pairs} rotated pairs",
                        given=len(scaling[word]),
                        pairs=rotated // 2,
                    ),
                    msg("give exactly {pairs} numbers", pairs=rotated // 2),
                    SEE,
                )
        if scaling.get("factor") is not None and scaling.get("attention_factor") is not None:
            yield Problem(
                f"{path}.factor",
                msg("factor only serves to compute attention_factor, which is given too"),
                msg("remove factor or attention_factor"),
                SEE,
            )
    if kind == "yarn":
        yield from _check_yarn(theta, scaling, path)
    if kind == "llama3" and scaling.get("low_freq_factor", 1.0) >= scaling.get("high_freq_factor", 4.0):
        yield Problem(
            f"{path}.high_freq_factor",
            msg("high_freq_factor must be greater than low_freq_factor"),
            msg("use for example low_freq_factor: 1 and high_freq_factor: 4"),
            SEE,
        )


def _check_yarn(theta: float, scaling: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if theta <= 1:
        yield Problem(
            path,
            msg("yarn takes the logarithm of the base theta, which must be greater than 1"),
            msg("use a larger theta, for example 10000.0"),
            SEE,
        )
    if scaling.get("beta_fast", 32.0) <= scaling.get("beta_slow", 1.0):
        yield Problem(
            f"{path}.beta_fast",
            msg("beta_fast must be greater than beta_slow"),
            msg("use for example beta_fast: 32 and beta_slow: 1"),
            SEE,
        )
    slopes = [word for word in ("mscale", "mscale_all_dim") if scaling.get(word) is not None]
    if len(slopes) == 1:
        yield Problem(
            f"{path}.{slopes[0]}",
            msg("mscale and mscale_all_dim only have a meaning together"),
            msg("give both, or neither"),
            SEE,
        )
    if slopes and scaling.get("attention_factor") is not None:
        yield Problem(
            f"{path}.attention_factor",
            msg("attention_factor and mscale both set the same factor"),
            msg("keep attention_factor, or mscale with mscale_all_dim"),
            SEE,
        )
