"""Findings about a model that is valid but unusual: the rules of all plugins, and what only the spec's text shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from eulerstack.dsl.paths import is_reserved
from eulerstack.errors import Finding, Message, msg
from eulerstack.plugins.faults import PLUGIN_ERRORS, reason_of
from eulerstack.plugins.primitive import Rule
from eulerstack.schema.claims import claimed_key
from eulerstack.schema.stages import scheduled_templates


def findings(ir: Any, registry: Any = None, spec: Mapping[str, Any] | None = None) -> list[Finding]:
    """Everything unusual about a model, in the order of the rules. `registry` defaults to the installed plugins'."""
    if registry is None:
        from eulerstack.plugins.manager import get_registry

        registry = get_registry()
    found: list[Finding] = []
    for rule in registry.rules():
        found += _answers(rule, ir, registry)
    found += _reserved(ir, registry, spec)
    if spec is not None:
        found += _tied_weights(spec)
        found += _unused_templates(spec, ir)
    locate = getattr(spec, "locate", lambda path: None)
    return [each if each.location or not each.path else replace(each, location=locate(each.path)) for each in found]


def _answers(rule: Rule, ir: Any, registry: Any) -> list[Finding]:
    """What a rule finds; where it fails, a finding that says so and whose it is.

    Rules belong to plugins; one that fails must not keep the others' findings from the user.
    """
    try:
        answers = list(rule.check(ir))
        for each in answers:
            if not (isinstance(each, Finding) and isinstance(each.what, Message) and isinstance(each.path, str)):
                raise TypeError(f"{each!r:.80} is no Finding")
    except PLUGIN_ERRORS as error:
        package, version = registry.provider(rule)
        reason = reason_of(error)
        registry.keep_traceback(rule, error)
        return [
            Finding(
                rule.name,
                msg("the rule from {package} {version} failed: {error}", package=package, version=version,
                    error=reason),
            )
        ]  # fmt: skip
    return answers


def _reserved(ir: Any, registry: Any, spec: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Keys of reserved namespaces that no plugin reads where they stand; with a spec, at their paths there."""
    handled = [namespace.key for namespace in registry.namespaces()]
    words = {
        f"{fragment.place}.{word}" if fragment.place else word
        for fragment in registry.schema_fragments()
        for word in fragment.properties
    }
    for path in ir.extensions:
        if path not in words and claimed_key(path, handled) is None:
            written = path if spec is None else ir.sources.get(path, path)
            what = msg("no installed plugin reads this key")
            yield Finding("reserved_namespace", what, written, ir.locations.get(path))


def _tied_weights(spec: Mapping[str, Any]) -> Iterator[Finding]:
    head, embedding = spec["head"].get("tie_weights"), spec["embedding"].get("tie_word_embeddings")
    if None not in (head, embedding) and head != embedding:
        yield Finding(
            "tied_weights",
            msg("head.tie_weights and embedding.tie_word_embeddings disagree; the head's word counts"),
            "head.tie_weights",
        )


def _unused_templates(spec: Mapping[str, Any], ir: Any) -> Iterator[Finding]:
    used = {name for _, name in scheduled_templates(spec["layer_schedule"])}
    if ir.head_layer is not None:
        used.add(ir.head_layer.template)
    for name in spec["layer_templates"]:
        if name not in used and not is_reserved(name):
            yield Finding(
                "unused_template", msg("no entry of the schedule uses this template"), f"layer_templates.{name}"
            )
