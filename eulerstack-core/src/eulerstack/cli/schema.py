"""`eulerstack schema`: the words of the language, as this installation knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from eulerstack.cli.options import json_option
from eulerstack.cli.terminal import columns, say, say_json, say_pairs, styled, wrap
from eulerstack.i18n import declared, language
from eulerstack.i18n import gettext as _

KIND_PLACES = {
    "mixer": "layer_templates.<name>.mixer",
    "ffn": "layer_templates.<name>.ffn",
    "norm": "layer_templates.<name>.norm",
    "residual": "layer_templates.<name>.residual",
    "position": "embedding",
    "head": "head",
    "integrator": "layer_schedule[].integrator",
    "merge": "layer_schedule[].merge",
    "memory": "layer_templates.<name>.memory",
}
# Keywords of JSON Schema whose values are schemas by name, and those whose values are data.
NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "dependentSchemas")
NO_SCHEMAS = ("default", "examples", "enum", "const")
EXPRESSION = r"^\$\{.*\}$"
KIND_OF_WORD = {(place, "positional" if kind == "position" else "type"): kind for kind, place in KIND_PLACES.items()}


def schema(as_json: Annotated[bool, json_option()] = False) -> None:
    """Prints every section and primitive with its words, their types, defaults and meanings.

    The JSON is a JSON Schema of specs as they are written, for editors and other programs.
    """
    from eulerstack.plugins.manager import get_registry
    from eulerstack.schema.assemble import assemble

    registry = get_registry()
    assembled = assemble(registry, language())
    if as_json:
        published = for_text(assembled)
        for path, section in _sections("", published):
            for word, names in _names(path).items():
                section["properties"][word]["enum"] = names
        say_json(published)
        return
    say(_("The words of schema_version {version}. Words marked * are required.").format(version=1))
    for path, section in _sections("", assembled):
        _print_section(path or _("top level"), section, _names(path))
    for kind, place in KIND_PLACES.items():
        for primitive in registry.primitives(kind):
            _print_title(f"{place}: {primitive.name}", declared(primitive.summary))
            say_pairs(word_rows({"properties": primitive.inline}))
            if primitive.schema is not None and primitive.schema.get("properties"):
                say_pairs(word_rows(primitive.schema, f"{primitive.block_name}."))
    # No word chooses these; keys of namespaces do.
    for primitive in registry.primitives("linear"):
        _print_title(f"linear: {primitive.name}", declared(primitive.summary))
    for namespace in registry.namespaces():
        _print_title(namespace.key, declared(namespace.summary))
        say_pairs(word_rows(namespace.schema))


def _names(path: str) -> dict[str, list[str]]:
    """The words of a section that name a primitive, and the names that this installation knows."""
    from eulerstack.plugins.manager import get_registry

    return {word: get_registry().names(kind) for (place, word), kind in KIND_OF_WORD.items() if place == path}


def for_text(schema: Any) -> Any:
    """The schema of a spec's text, in which an expression may stand wherever a number may; the schema given knows only
    what expressions come to."""
    if isinstance(schema, list):
        return [for_text(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED_SCHEMAS and isinstance(value, dict):
            changed[key] = {name: for_text(below) for name, below in value.items()}
        else:
            changed[key] = value if key in NO_SCHEMAS else for_text(value)
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds) if isinstance(kinds, (list, tuple)) else []
    if {"integer", "number"} & set(kinds) and "string" not in kinds and not {"const", "enum"} & set(schema):
        changed |= {"type": [*kinds, "string"], "pattern": EXPRESSION}
    return changed


def _sections(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections of the language: every object in the schema that is not a primitive's."""
    yield path, schema
    for key, value in schema.get("properties", {}).items():
        below = _object_in(value)
        if below is not None:
            suffix = "[]" if value.get("type") == "array" else ".<name>" if "properties" not in value else ""
            yield from _sections(f"{path}.{key}{suffix}" if path else f"{key}{suffix}", below)


def _object_in(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if value.get("type") == "array":
        value = value.get("items", {})
    elif value.get("type") == "object" and "properties" not in value:
        others = value.get("additionalProperties")
        value = others if isinstance(others, Mapping) else next(iter(value.get("patternProperties", {}).values()), {})
    return value if isinstance(value, Mapping) and value.get("properties") else None


def _print_section(title: str, section: Mapping[str, Any], names: Mapping[str, list[str]]) -> None:
    _print_title(title, section.get("description", ""))
    known = {word: {**section["properties"][word], "enum": among} for word, among in names.items()}
    say_pairs(word_rows({**section, "properties": {**section["properties"], **known}}))


def _print_title(title: str, description: str) -> None:
    say()
    say(styled(title, "bold"))
    for line in wrap(description, min(columns(), 110) - 2) if description else ():
        say("  " + line)


def word_rows(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The words of a schema, required ones marked with *, and what they mean."""
    required = section.get("required", ())
    return [
        (f"{prefix}{name}{'*' if name in required else ''}", _explanation(word))
        for name, word in section.get("properties", {}).items()
    ]


def _explanation(word: Mapping[str, Any]) -> str:
    parts = [_type(word)]
    if "default" in word:
        parts.append(_("default {value}").format(value=_value(word["default"])))
    meaning = word.get("description")
    return f"{', '.join(part for part in parts if part)}{'. ' if meaning else ''}{declared(meaning) if meaning else ''}"


def _type(word: Mapping[str, Any]) -> str:
    if word.get("enum"):
        return " | ".join(_value(each) for each in word["enum"])
    if "const" in word:
        return _value(word["const"])
    kinds = word.get("type", ())
    return " | ".join([kinds] if isinstance(kinds, str) else kinds)


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
