"""What a schedule entry may change in its template: values, never the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eulerstack.dsl.paths import is_reserved, show
from eulerstack.errors import Collector, msg
from eulerstack.schema.parts import Part, Parts
from eulerstack.schema.sections import run_of_layers
from eulerstack.schema.words import meant_value, one_of

ALLOWED = {
    section: tuple(schema["properties"])
    for section, schema in run_of_layers({}, {}, {})["properties"]["override"]["properties"].items()
}
_SEE = "reference/errors.md#override"
_LIST = ", ".join(f"{section}.{word}" for section, words in ALLOWED.items() for word in words)


def check_words(override: Mapping[str, Any], path: str, problems: Collector) -> bool:
    """Records each word that is outside the list of those an override may change; True when there is none."""
    before = len(problems.diagnostics)
    for section, words in override.items():
        if is_reserved(section):
            continue
        outside = [section] if section not in ALLOWED else []
        if section in ALLOWED and isinstance(words, Mapping):
            outside = [f"{section}.{word}" for word in words if word not in ALLOWED[section] and not is_reserved(word)]
        for word in outside:
            problems.add(
                f"{path}.{word}",
                msg("an override can't change {word}", word=word),
                msg("Make a new template with it; an override changes only: {words}", words=_LIST),
                _SEE,
            )
    return len(problems.diagnostics) == before


def check_fit(template: Mapping[str, Part], override: Mapping[str, Any], path: str, problems: Collector) -> bool:
    """Records words that the template's primitives don't have; True when all of them fit."""
    before = len(problems.diagnostics)
    mixer, ffn, residual = template.get("mixer"), template.get("ffn"), template.get("residual")
    if override.get("attention") and mixer and mixer.primitive.name != "attention":
        problems.add(
            f"{path}.attention",
            msg("the template's mixer is {type}, not attention", type=mixer.primitive.name),
            msg("Delete attention from the override"),
            _SEE,
        )
    activation = override.get("ffn", {}).get("activation")
    if activation is not None and ffn:
        choices = ffn.primitive.inline.get("activation", {}).get("enum", ())
        if activation not in choices:
            near = meant_value(activation, choices)
            problems.add(
                f"{path}.ffn.activation",
                msg("{type} has no activation {value}", type=ffn.primitive.name, value=show(activation)),
                msg("Type activation: {word}", word=near)
                if near
                else msg("Type one of: {choices}", choices=one_of(choices)),
                _SEE,
            )
    if "scaling" in override.get("residual", {}) and residual and "scaling" not in residual.primitive.inline:
        problems.add(
            f"{path}.residual.scaling",
            msg("{type} has no scaling", type=residual.primitive.name),
            msg("Delete residual from the override"),
            _SEE,
        )
    return len(problems.diagnostics) == before


def applied(template: Mapping[str, Any], override: Mapping[str, Any], registry: Any) -> dict[str, Any]:
    """The template with the override's values; words that a new norm doesn't know are dropped."""
    result = dict(template)
    if override.get("attention"):
        mixer = template["mixer"]
        result["mixer"] = {**mixer, "attention": {**(mixer.get("attention") or {}), **override["attention"]}}
    for section in ("residual", "ffn"):
        result[section] = {**template.get(section, {}), **override.get(section, {})}
    norm = dict(template.get("norm", {}))
    if "type" in override.get("norm", {}) and override["norm"]["type"] in registry.names("norm"):
        known = registry.get("norm", override["norm"]["type"]).inline
        norm = {word: value for word, value in norm.items() if word in known or word == "position"}
    result["norm"] = {**norm, **override.get("norm", {})}
    return result


def check_count(
    parts: Parts,
    before: Mapping[str, Part],
    after: Mapping[str, Part],
    positions: Sequence[str],
    is_last: bool,
    path: str,
    problems: Collector,
) -> None:
    """Records an override that changes the number of parameters; `positions` are the norms' places before and after."""
    counts = [
        _count(parts, layer, position, is_last) for layer, position in zip((before, after), positions, strict=True)
    ]
    if counts[0] != counts[1]:
        problems.add(
            path,
            msg(
                "this override changes the layer's parameters from {before} to {after}",
                before=counts[0],
                after=counts[1],
            ),
            msg("Make a new template for these layers instead"),
            _SEE,
        )


def _count(parts: Parts, layer: Mapping[str, Part], position: str, is_last: bool) -> int:
    """The layer's parameters; for the last layer with the final norm, which is its own norm unless it stands post."""
    has_ffn = not layer["ffn"].primitive.absent
    norms = parts.norm_count(layer["residual"], position, has_ffn) + (is_last and position != "post")
    blocks = sum(parts.params_count(layer[kind]) for kind in ("mixer", "ffn", "residual"))
    return blocks + norms * parts.params_count(layer["norm"])
