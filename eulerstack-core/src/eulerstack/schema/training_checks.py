"""What contradicts what in `training_hints`, `compatibility` and `tissue`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import Any

from eulerstack.dsl.paths import is_reserved, show
from eulerstack.dsl.suggest import nearest
from eulerstack.errors import Collector, msg
from eulerstack.schema.defaults import complete_words
from eulerstack.schema.training import training_hints
from eulerstack.schema.words import one_of

SEE_SCALING = "reference/errors.md#scaling"
SEE_OPTIMIZER = "reference/errors.md#optimizer"
SEE_PROBE = "reference/errors.md#usage-probe"
SEE_QUANTIZATION = "reference/errors.md#quantization"
SEE_TISSUE = "reference/errors.md#tissue"


def check_training_hints(hints: Mapping[str, Any], d_model: int, problems: Collector) -> None:
    """That µP has its base width, and that Muon's words are there for somebody."""
    scaling = hints.get("scaling", {})
    mup, base_width = scaling.get("parametrization", "standard") == "mup", scaling.get("base_width")
    if mup and base_width is None:
        problems.add(
            "training_hints.scaling",
            msg("mup needs the width at which the hints were tuned"),
            msg("Add base_width: {width}, or the width of your small model", width=d_model),
            SEE_SCALING,
        )
    if not mup and base_width is not None:
        problems.add(
            "training_hints.scaling.base_width",
            msg("base_width has a meaning only with parametrization: mup"),
            msg("Add parametrization: mup, or delete base_width"),
            SEE_SCALING,
        )
    chosen = [hints.get("optimizer", "adamw"), *(each.get("optimizer") for each in hints.get("optimizer_groups", ()))]
    words = training_hints()["properties"]["muon"]["properties"]
    differs = complete_words(words, hints.get("muon", {})) != complete_words(words, {})
    if differs and not {"muon", "hybrid"} & set(chosen):
        problems.add(
            "training_hints.muon",
            msg("muon has words here, but no parameter is trained with it"),
            msg("Type optimizer: hybrid, or delete muon"),
            SEE_OPTIMIZER,
        )


def check_probe(hints: Mapping[str, Any], is_routed: bool, problems: Collector) -> None:
    """That there is something for a usage probe to tell apart; `is_routed` says so."""
    if hints.get("differentiation_objectives", {}).get("usage_probe_coef") and not is_routed:
        problems.add(
            "training_hints.differentiation_objectives.usage_probe_coef",
            msg("no layer routes its tokens to experts or branches that a probe could tell apart"),
            msg("Type usage_probe_coef: 0, or use ffn: moe or mixer: branched"),
            SEE_PROBE,
        )


def check_quantization(compatibility: Mapping[str, Any], problems: Collector) -> None:
    """That what trains with rounded weights is installed."""
    if compatibility.get("quant_aware_training", {}).get("enabled") and find_spec("torchao") is None:
        problems.add(
            "compatibility.quant_aware_training.enabled",
            msg("training with rounded weights needs the package torchao, which is not installed"),
            msg("pip install torchao"),
            SEE_QUANTIZATION,
        )


def check_tissue(
    tissue: Mapping[str, Any], templates: Collection[str], scheduled: Collection[str], problems: Collector
) -> None:
    """That every template of a column exists, is used, and belongs to no other, and that columns' names differ."""
    columns: dict[str, int] = {}
    owners: dict[str, str] = {}
    for index, column in enumerate(tissue.get("columns", ())):
        path, name = f"tissue.columns[{index}]", column["name"]
        if name in columns:
            problems.add(
                f"{path}.name",
                msg("there are two columns called {name}", name=show(name)),
                msg("Give one of them another name"),
                SEE_TISSUE,
            )
        columns[name] = index
        for place, template in enumerate(column["templates"]):
            if is_reserved(template):
                continue
            where = f"{path}.templates[{place}]"
            if template not in templates:
                near = nearest(template, templates)
                problems.add(
                    where,
                    msg("there is no template {name}", name=show(template)),
                    msg("Type one of: {choices}", choices=near or one_of(templates)),
                    SEE_TISSUE,
                )
            elif template in owners:
                problems.add(
                    where,
                    msg("the template {name} belongs to the column {column} already", name=template,
                        column=show(owners[template])),
                    msg("Delete it here or there"),
                    SEE_TISSUE,
                )  # fmt: skip
            elif template not in scheduled:
                problems.add(
                    where,
                    msg("no layer is made from the template {name}", name=template),
                    msg("Use it in layer_schedule, or delete it here"),
                    SEE_TISSUE,
                )
            else:
                owners[template] = name
