"""docs/reference/language.md: every accepted word, from the assembled JSON Schema."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from eulerstack.plugins.sources import PluginSource
from pages.markdown import GENERATED, join, table

Schema = Mapping[str, Any]
PLUGINS = Path(__file__).resolve().parents[2] / "eulerstack-plugins"

INTRODUCTION = """\
# The language

A spec is one YAML 1.2 document of `schema_version: 1`. This page lists every word that the core and eulerstack-mixers
accept, and those of this project's other packages, which it names; `eulerstack schema` prints the same for what is
installed, `eulerstack schema --json` as a JSON Schema.

- Unknown words are errors, with the nearest known one suggested. A mapping is closed: it takes its own words, and keys
  in reserved namespaces.
- The only booleans are `true` and `false`; a boolean is not a number, and 24.0 is not an integer.
- `null` is accepted where the tables say so, and means what they say. An empty block is written `{}`.
- Parameter blocks bear the name of the type (`attention: {}` beside `type: attention`), and only the block of the
  chosen type may be present.
- A template's words hold for each of its layers; `layer_schedule` may override a few of them that leave the number of
  parameters as it is.
- Defaults are those of the tables and stand nowhere else; the compiled `config.json` has every one filled in."""

EXPRESSIONS = """\
## Expressions

`let` names numbers; `${…}`, as a whole value, stands for a number anywhere, `let` included. Operators are `+ - * / //`,
parentheses and the unary minus; operands are numbers and `let.<name>`. Arithmetic is exact: `1024 / 3 * 3` is the
integer 1024, and `//` rounds downwards. There is nothing else: no functions, no texts, no conditions. In a mapping
written in braces an expression stands in quotes.

```yaml
let: { n_heads: 16, head_dim: 64 }
model: { d_model: "${let.n_heads * let.head_dim}", n_heads: "${let.n_heads}" }
```"""

RESERVED = """\
## Reserved namespaces

Keys that begin with `experimental.`, `future.` or `vendor.<name>.` are allowed in every mapping. A plugin may claim
one, check its value, compile it, and have linear layers computed by other means, as
[`vendor.tensor.weight_form`](tensor.md) does; `validate --report` warns of those that nobody claims, which reach
`config.v1_extensions` as they are."""

KIND_OF_PLACE = {
    "layer_templates.<name>.mixer": "mixer",
    "layer_templates.<name>.ffn": "ffn",
    "layer_templates.<name>.norm": "norm",
    "layer_templates.<name>.residual": "residual",
    "layer_templates.<name>.memory": "memory",
    "head": "head",
    "embedding": "position",
}


@dataclass(frozen=True)
class Section:
    """A mapping of the language: its title, its meaning, its words, the level of its heading."""

    title: str
    description: str
    rows: list[list[str]]
    depth: int


NAMED_BY_PLUGINS = ("type", "positional", "compile_target")


def page() -> str:
    """The page's text; the active language must be English."""
    from eulerstack.plugins.manager import Registry
    from eulerstack.plugins.sources import installed_sources
    from eulerstack.schema.assemble import assemble

    # What other plugins of this machine add is not ours to document; our own are, installed or not.
    installed = [source for source in installed_sources() if source.own]
    registry = Registry([*installed, *checkout_sources({source.package for source in installed})])
    schema = assemble(registry)
    return join(
        GENERATED,
        INTRODUCTION,
        *(text for each in sections("", schema, registry) for text in written(each)),
        EXPRESSIONS,
        RESERVED,
    )


def checkout_sources(installed: set[str]) -> Iterator[PluginSource]:
    """The plugins of the folder eulerstack-plugins whose packages are not among the installed ones."""
    for file in sorted(PLUGINS.glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        if project["name"] not in installed:
            sys.path.append(str(file.parent / "src"))
            for name, target in project["entry-points"]["eulerstack"].items():
                yield PluginSource(name, project["name"], project["version"], partial(import_module, target), target)


def written(section: Section) -> Iterator[str]:
    """A section as markdown blocks."""
    yield f"{'#' * section.depth} {section.title}"
    yield section.description
    if section.rows:
        yield table(["word", "value", "default", "meaning"], section.rows)


def sections(path: str, schema: Schema, registry: Any) -> Iterator[Section]:
    """The section at `path`, one for each type that may be chosen there, and the sections below it."""
    properties: Schema = schema.get("properties", {})
    below = {name: inner for name, value in properties.items() if (inner := section_in(path, value)) is not None}
    rows = [row for name, value in properties.items() for row in word_rows(name, value, schema, name in below)]
    depth = 3 if path.startswith("layer_templates.<name>.") else 2
    yield Section(f"`{path}`" if path else "Top level", schema.get("description", ""), rows, depth)
    for rule in schema.get("allOf", ()):
        chosen = chosen_type(rule)
        rows = [
            row
            for name, value in rule["then"].get("properties", {}).items()
            if name not in properties and value not in (True, {})
            for row in word_rows(name, value, rule["then"], False)
        ]
        summary = registry.get(KIND_OF_PLACE[path], chosen).summary
        title = f"{path.rpartition('.')[2]}: {chosen}"
        package = registry.origin(registry.get(KIND_OF_PLACE[path], chosen))[0]
        separate = f" From the package `{package}`." if (PLUGINS / package.removeprefix("eulerstack-")).is_dir() else ""
        yield Section(title, f"{summary[0].upper()}{summary[1:]}.{separate}", rows, depth + 1)
    for name, inner in below.items():
        if name == "layer_templates":
            yield from sections("layer_templates.<name>", inner["additionalProperties"], registry)
        elif inner.get("type") == "array":
            yield from sections(f"{name}[]", inner["items"], registry)
        else:
            yield from sections(f"{path}.{name}" if path else name, inner, registry)


def section_in(path: str, value: Schema) -> Schema | None:
    """The schema of a word that gets a section of its own: the top level's mappings and whatever has types."""
    if path == "layer_templates.<name>" and "allOf" in value:
        return value
    closed_mapping = value.get("type") == "object" and not isinstance(value.get("additionalProperties"), dict)
    templates = isinstance(value.get("additionalProperties"), dict) and "properties" in value["additionalProperties"]
    return value if not path and (closed_mapping or templates or value.get("type") == "array") else None


def chosen_type(rule: Schema) -> str:
    """The type that a rule is about."""
    (condition,) = rule["if"]["properties"].values()
    return condition["const"]


def word_rows(name: str, value: Any, parent: Schema, has_section: bool, prefix: str = "") -> Iterator[list[str]]:
    """The row of a word, and of the words inside it."""
    label = f"{prefix}{name}"
    if "default" in value:
        default = f"`{scalar(value['default'])}`"
    else:
        default = "required" if name in parent.get("required", ()) else "–"
    text = "below" if has_section else value_text(name, value)
    yield [f"`{label}`", text, default, value.get("description", "")]
    if has_section:
        return
    for inner, schema in value.get("properties", {}).items():
        yield from word_rows(inner, schema, value, False, f"{label}.")
    items = value.get("items", {})
    for inner, schema in items.get("properties", {}).items():
        yield from word_rows(inner, schema, items, False, f"{label}.")
    yield from typed_rows(value, label)


def typed_rows(value: Schema, label: str) -> Iterator[list[str]]:
    """The rows of words that only some types of the mapping `label` take; what types share is one row."""
    types: dict[tuple[str, ...], list[str]] = {}
    for rule in value.get("allOf", ()):
        for inner, schema in rule["then"].get("properties", {}).items():
            if schema and inner not in value.get("properties", {}):
                for row in word_rows(inner, schema, rule["then"], False, f"{label}."):
                    types.setdefault(tuple(row), []).append(chosen_type(rule))
    for (word, text, default, meaning), names in types.items():
        yield [word, text, default, f"{', '.join(names)}: {meaning}"]


def value_text(name: str, value: Schema) -> str:
    """What may be written: kinds, names, bounds."""
    if "anyOf" in value:
        return " or ".join(value_text(name, each) for each in value["anyOf"])
    if "const" in value:
        return f"`{scalar(value['const'])}`"
    if "enum" in value:
        return " ".join(f"`{scalar(each)}`" for each in value["enum"])
    kinds = [value["type"]] if isinstance(value.get("type"), str) else list(value.get("type", ()))
    words = {"object": "mapping", "array": "list", "number": "number", "integer": "integer"}
    text = " or ".join(words.get(kind, kind) for kind in kinds)
    if name in NAMED_BY_PLUGINS and value.get("examples"):
        return " ".join(f"`{each}`" for each in value["examples"])
    if isinstance(value.get("items"), Mapping):
        text += f" of {value_text(name, value['items'])}"
    return ", ".join([text, *bounds(value)])


def bounds(value: Schema) -> Iterator[str]:
    """The limits of a number, a text or a list."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    yield from (f"{sign} {number(value[key])}" for key, sign in signs.items() if key in value)
    if "maxLength" in value:
        yield f"at most {value['maxLength']} characters"
    for key in ("minItems", "minProperties"):
        if key in value:
            yield f"at least {value[key]}"


def number(value: float) -> str:
    """A number; large powers of two, and what is one less, as such."""
    for excess, suffix in ((0, ""), (1, " - 1")):
        exponent = int(value + excess).bit_length() - 1
        if value + excess == 2**exponent and exponent >= 20:
            return f"2^{exponent}{suffix}"
    return f"{value:g}"


def scalar(value: Any) -> str:
    """A value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
