"""Findings about a model that is valid but unusual: the rules of all plugins, and what only the spec's text shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from eulerstack.dsl.paths import is_reserved, parse_layers_path
from eulerstack.errors import Finding, msg

_reserved_in_path = re.compile(r"(?:^|\.)((?:experimental|future|vendor\.[A-Za-z0-9_-]+)\.[A-Za-z0-9_.-]+)$")


def findings(ir: Any, registry: Any = None, spec: Mapping[str, Any] | None = None) -> list[Finding]:
    """Everything unusual about a model, in the order of the rules. `registry` defaults to the installed plugins'."""
    if registry is None:
        from eulerstack.plugins.manager import get_registry

        registry = get_registry()
    found: list[Finding] = []
    for rule in registry.rules():
        try:
            answers = list(rule.check(ir))
            if not all(isinstance(each, Finding) for each in answers):
                raise TypeError("it found something that is no Finding")
            found += answers
        # Rules belong to plugins; one that fails must not keep the others' findings from the user.
        except Exception as error:
            what = msg("the rule failed: {error}", error=f"{type(error).__name__}: {error}"[:200])
            found.append(Finding(rule.name, what))
    found += _reserved(ir, registry, spec)
    if spec is not None:
        found += _tied_weights(spec)
        found += _unused_templates(spec)
    locate = getattr(spec, "locate", lambda path: None)
    return [each if each.location or not each.path else replace(each, location=locate(each.path)) for each in found]


def _reserved(ir: Any, registry: Any, spec: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Keys of reserved namespaces that no plugin claims; with a spec, under the paths where it has them."""
    entries = _entries(spec)
    claimed = {namespace.key for namespace in registry.namespaces()}
    claimed |= {name for fragment in registry.schema_fragments() for name in fragment.properties}
    for path in ir.extensions:
        key = _reserved_in_path.search(path)
        if key is None or key.group(1) not in claimed:
            layers = parse_layers_path(path)
            if layers and layers[0] in entries:
                path = f"layer_schedule[{entries[layers[0]]}].{layers[2]}"
            yield Finding("reserved_namespace", msg("no installed plugin reads this key"), path)


def _entries(spec: Mapping[str, Any] | None) -> dict[int, int]:
    """The index of each entry of the schedule by that of its first layer."""
    first = 0
    entries = {}
    for index, entry in enumerate(spec["layer_schedule"] if spec else ()):
        entries[first] = index
        first += entry.get("repeat", 1)
    return entries


def _tied_weights(spec: Mapping[str, Any]) -> Iterator[Finding]:
    head, embedding = spec["head"].get("tie_weights"), spec["embedding"].get("tie_word_embeddings")
    if None not in (head, embedding) and head != embedding:
        yield Finding(
            "tied_weights",
            msg("head.tie_weights and embedding.tie_word_embeddings disagree; the head's word counts"),
            "head.tie_weights",
        )


def _unused_templates(spec: Mapping[str, Any]) -> Iterator[Finding]:
    used = {entry.get("template") for entry in spec["layer_schedule"]}
    for name in spec["layer_templates"]:
        if name not in used and not is_reserved(name):
            yield Finding(
                "unused_template", msg("no entry of the schedule uses this template"), f"layer_templates.{name}"
            )
