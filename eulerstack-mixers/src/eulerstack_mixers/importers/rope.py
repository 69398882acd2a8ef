"""Rotary positions between config.json and the language, in the old and the new spelling.

New: `rope_parameters: {rope_type, rope_theta, …}`. Old: `rope_theta` beside `rope_scaling: {type | rope_type, …}`.
What a class of transformers 5 does with them is what counts: keys that it does not read are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack_mixers.importers.reader import MAX_SIZE, ConfigReader, is_integer, is_number

# rope_type -> (required numbers, optional numbers); all but those of `original` in tokens
_FACTORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "yarn": (("factor",), ("beta_fast", "beta_slow")),
    "longrope": ((), ("factor", "attention_factor")),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ()),
}
_WITH_ORIGINAL = ("yarn", "longrope", "llama3")
_ORIGINAL = "original_max_position_embeddings"


def read_rope(reader: ConfigReader, max_seq_len: int, partial: float = 1.0) -> dict[str, Any]:
    """The `embedding` words for a config's rotary positions: rope_theta and, where there is one, rope_scaling.

    `partial` is the part of a head that the family's class rotates, whatever config.json says.
    """
    key = "rope_scaling" if reader["rope_scaling"] else "rope_parameters"
    given = reader[key]
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        reader.wrong(key, given, msg("a mapping or null"))
        return {"rope_theta": 10000.0}
    if any(isinstance(value, Mapping) for value in given.values()):
        reader.unsupported(
            key,
            msg("has parameters by layer type, which this family's class does not read"),
            msg("write one flat mapping: rope_type, rope_theta, factor, …"),
        )
        return {"rope_theta": 10000.0}
    theta = given["rope_theta"] if given.get("rope_theta") is not None else reader["rope_theta"]
    if theta is None:
        theta = 10000.0
    elif not is_number(theta) or theta <= 0:
        reader.wrong("rope_theta", theta, msg("a number above 0"))
        theta = 10000.0
    for place, value in (
        ("partial_rotary_factor", reader["partial_rotary_factor"]),
        (f"{key}.partial_rotary_factor", given.get("partial_rotary_factor")),
    ):
        if value is not None and value != partial:
            whole, half = msg("this family rotates whole heads"), msg("this family rotates half of a head")
            reason = whole if partial == 1 else half
            reader.unsupported(
                place,
                msg("{value} can't be imported: {reason}", value=value, reason=reason),
                msg("import a checkpoint whose `{key}` is {wanted}", key="partial_rotary_factor", wanted=str(partial)),
            )
    words: dict[str, Any] = {"rope_theta": float(theta)}
    scaling = _read_scaling(reader, key, given, max_seq_len)
    if scaling:
        words["rope_scaling"] = scaling
    return words


def _read_scaling(reader: ConfigReader, key: str, given: Mapping[str, Any], max_seq_len: int) -> dict[str, Any] | None:
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return None
    if not isinstance(kind, str) or kind not in _FACTORS:
        reader.unknown(f"{key}.rope_type", kind, ("default", *_FACTORS))
        return None
    scaling: dict[str, Any] = {"type": kind}
    required, optional = _FACTORS[kind]
    if kind in _WITH_ORIGINAL:
        scaling["original_max_seq_len"] = _original(reader, key, given, max_seq_len)
    if kind == "yarn" and given.get("factor") is None:
        given = {**given, "factor": max_seq_len / scaling["original_max_seq_len"]}
    for name in (*required, *optional):
        value = given.get(name)
        # a zero beta counts as unset in the reference
        if name in optional and (value is None or (value == 0 and name.startswith("beta_"))):
            continue
        if is_number(value):
            scaling[name] = float(value)
        else:
            reader.wrong(f"{key}.{name}", value, msg("a number"))
    if kind == "yarn":
        scaling.update(_yarn_attention(given))
        if given.get("truncate") is False:
            scaling["truncate"] = False
    if kind == "longrope":
        if "attention_factor" in scaling:
            # it makes the stretch, from which it would be computed, irrelevant
            scaling.pop("factor", None)
        for name in ("short_factor", "long_factor"):
            values = given.get(name)
            if isinstance(values, list) and all(is_number(value) for value in values):
                scaling[name] = [float(value) for value in values]
            else:
                reader.wrong(f"{key}.{name}", values, msg("a list of numbers"))
    return scaling


def _original(reader: ConfigReader, key: str, given: Mapping[str, Any], max_seq_len: int) -> int:
    """The length before the stretch: a key of the config itself wins, then the mapping's, then the full length."""
    for place, value in ((_ORIGINAL, reader[_ORIGINAL]), (f"{key}.{_ORIGINAL}", given.get(_ORIGINAL))):
        if value is not None:
            if is_integer(value) and value > 0:
                return int(value)
            reader.wrong(place, value, msg("a whole number from {minimum} to {maximum}", minimum=1, maximum=MAX_SIZE))
    return max_seq_len


def _yarn_attention(given: Mapping[str, Any]) -> dict[str, float]:
    """The words that decide yarn's scale of cos and sin: an explicit factor wins, mscale counts only as a pair."""
    if is_number(given.get("attention_factor")):
        return {"attention_factor": float(given["attention_factor"])}
    pair = {name: given.get(name) for name in ("mscale", "mscale_all_dim")}
    if all(is_number(value) and value for value in pair.values()):
        return {name: float(value) for name, value in pair.items() if value is not None}
    return {}


def write_rope(words: Mapping[str, Any], max_seq_len: int) -> dict[str, Any]:
    """`rope_parameters` for the complete words of an IR's position; the reverse of `read_rope`."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": words.get("rope_theta", 10000.0)}
    scaling = words.get("rope_scaling")
    if scaling is None:
        return parameters
    parameters["rope_type"] = scaling["type"]
    for name, value in scaling.items():
        if name == "type" or value is None:
            continue
        if name == "original_max_seq_len":
            if scaling["type"] in _WITH_ORIGINAL:
                parameters[_ORIGINAL] = value
        else:
            parameters[name] = list(value) if isinstance(value, (list, tuple)) else value
    if scaling["type"] == "yarn":
        parameters.setdefault(_ORIGINAL, max_seq_len)
    return parameters
