"""Structural validation: is every word known, of the right kind and in its range?

The data is checked by the jsonschema library against the schema that `assemble` makes, under the language's own idea of
types: true is no number and 24.0 is no whole number.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.dsl.paths import Path, dotted, is_reserved, show
from eulerstack.dsl.source import Spec, as_spec
from eulerstack.errors import Collector, CompatibilityError, msg
from eulerstack.schema.assemble import assemble
from eulerstack.schema.held import held_mappings
from eulerstack.schema.problems import Explainer
from eulerstack.schema.sections import MAX_LAYERS
from eulerstack.schema.stages import check_entries, check_streams, scheduled_layers

_validators: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def validate_structure(spec: Mapping[str, Any], registry: Any) -> None:
    """Raises ValidationError with every problem of the spec's structure; `spec` may be a plain mapping."""
    data = as_spec(spec)
    problems = Collector("ValidationError", data.locate)
    try:
        errors = list(_validator(registry).iter_errors(data))
    # The schemas belong to plugins, and a faulty one makes the library raise anything.
    except Exception as error:
        raise _schema_fault(data, registry, error) from error
    if errors:
        Explainer(assemble(registry), registry, problems, data.locate_key, data.raw).explain(errors)
    _check_foreign_blocks(data, registry, problems)
    check_entries(data, problems)
    check_streams(data, problems)
    _check_length(data, problems)
    problems.raise_if_any()


def _validator(registry: Any) -> Any:
    if registry not in _validators:
        _validators[registry] = _validator_class()(assemble(registry))
    return _validators[registry]


def _validator_class() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer).redefine("number", _is_number)
    return extend(Draft202012Validator, type_checker=types)


def _is_integer(checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _typed_parts(data: Spec, registry: Any) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """The mappings that choose a type, those of templates, schedule and head: path, kind, mapping."""
    head = data.get("head")
    if isinstance(head, dict):
        yield ("head",), "head", head
    schedule = data.get("layer_schedule")
    for index, entry in enumerate(schedule if isinstance(schedule, list) else ()):
        for kind in ("integrator", "merge"):
            part = entry.get(kind) if isinstance(entry, dict) else None
            if isinstance(part, dict):
                yield ("layer_schedule", index, kind), kind, part
    templates = data.get("layer_templates")
    for name, template in templates.items() if isinstance(templates, dict) else ():
        for kind in ("mixer", "ffn", "norm", "residual", "memory"):
            part = template.get(kind) if isinstance(template, dict) else None
            if isinstance(part, dict):
                yield ("layer_templates", name, kind), kind, part
                for below, each in held_mappings(registry, kind, part):
                    yield ("layer_templates", name, kind, *below), kind, dict(each)


def _check_foreign_blocks(data: Spec, registry: Any, problems: Collector) -> None:
    """A third party's block beside another type: its key looks reserved, so the schema lets it pass."""
    for place, kind, part in _typed_parts(data, registry):
        for key in part:
            if is_reserved(key) and key != part.get("type") and key in registry.names(kind):
                path = (*place, key)
                problems.add(
                    dotted(path),
                    msg(
                        "only the block of the chosen type may stand here; the type is {type}",
                        type=show(part.get("type")),
                    ),
                    msg("Delete {key}, or type 'type: {key}'", key=key),
                    "reference/errors.md#other-block",
                    data.locate_key(path),
                )


def _check_length(data: Spec, problems: Collector) -> None:
    """The schedule as a whole: a single entry's limit is in the schema."""
    total = 0
    schedule = data.get("layer_schedule")
    for index, entry in enumerate(schedule if isinstance(schedule, list) else ()):
        number = scheduled_layers(entry) if isinstance(entry, dict) else 0
        if number > MAX_LAYERS and "parallel" not in entry:
            return
        total += max(number, 0)
        if total > MAX_LAYERS:
            problems.add(
                f"layer_schedule[{index}]",
                msg("the schedule reaches {total} layers here; {limit} is the limit", total=total, limit=MAX_LAYERS),
                msg("Lower repeat, so that the model has at most {limit} layers", limit=MAX_LAYERS),
                "reference/errors.md#range",
            )
            return


def _schema_fault(data: Spec, registry: Any, error: Exception) -> CompatibilityError:
    """Names the primitives whose schemas make the library fail on this spec."""
    problems = Collector("CompatibilityError", data.locate)
    for path, kind, part in _typed_parts(data, registry):
        name = part.get("type")
        if not isinstance(name, str) or name not in registry.names(kind):
            continue
        primitive = registry.get(kind, name)
        words = {**primitive.inline, primitive.block_name: primitive.schema or {}}
        try:
            list(_validator_class()({"properties": words}).iter_errors(part))
        # It is one of these that raised; the library raises anything.
        except Exception as fault:
            package, _ = registry.origin(primitive)
            _add_schema_fault(problems, dotted(path), name, package, fault)
    for place, name, item, schema, value in _added_words(data, registry):
        try:
            list(_validator_class()(schema).iter_errors(value))
        # As above.
        except Exception as fault:
            _add_schema_fault(problems, place, name, registry.provider(item)[0], fault)
    if not problems.diagnostics:
        _add_schema_fault(problems, "", "?", "?", error)
    return CompatibilityError(problems.diagnostics)


def _added_words(data: Spec, registry: Any) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """What plugins' own words stand for in this spec: path, key, the declaration, its schema, the value."""
    for fragment in registry.schema_fragments():
        section: Any = data.get(fragment.place) if fragment.place else data
        for word in fragment.properties if isinstance(section, dict) else ():
            if word in section:
                path = f"{fragment.place}.{word}" if fragment.place else word
                yield path, word, fragment, fragment.properties[word], section[word]
    schemas = {namespace.key: namespace for namespace in registry.namespaces()}
    waiting: list[tuple[Path, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if path and path[-1] in schemas:
            namespace = schemas[path[-1]]
            yield dotted(path), namespace.key, namespace, namespace.schema, value
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [((*path, key), each) for key, each in entries]


def _add_schema_fault(problems: Collector, path: str, name: str, package: str, error: Exception) -> None:
    problems.add(
        path,
        msg(
            "the schema of {name} from {package} is faulty: {error}", name=name, package=package, error=str(error)[:200]
        ),
        msg("Install another version of {package}, or disable its plugin", package=package),
        "reference/errors.md#plugin-fault",
    )
