"""One JSON Schema (draft 2020-12) from the core's words and those of every registered primitive.

Each place where a type is chosen becomes one `if`/`then` per type, so that a fault inside a block is reported for the
chosen type alone. Every mapping is closed: it takes its own words and keys in reserved namespaces, nothing else.
"""

from __future__ import annotations

import copy
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eulerstack import i18n
from eulerstack.dsl.paths import RESERVED_KEY
from eulerstack.errors import Message, msg
from eulerstack.plugins.primitive import Primitive
from eulerstack.schema import phases, sections, training
from eulerstack.schema.sections import Schema, word

_assembled: weakref.WeakKeyDictionary[Any, Schema] = weakref.WeakKeyDictionary()


def assemble(registry: Any, language: str | None = None) -> Schema:
    """The JSON Schema of a spec after `let` and expressions, as `registry` makes it.

    Descriptions are English, or in `language` (ko, en, zh, ja, es). Calls share the schema, so it must not be changed.
    """
    if language is not None:
        return _translated(_assemble(registry), language)
    if registry not in _assembled:
        _assembled[registry] = _translated(_assemble(registry), None)
    return _assembled[registry]


def _assemble(registry: Any) -> Schema:
    positions = registry.primitives("position")
    norm = _choice(
        registry,
        "norm",
        msg("Normalisation of a layer."),
        sections.DEFAULT_TYPES["norm"],
        {"position": sections.norm_position()},
    )
    template = sections.template(
        mixer=_choice(registry, "mixer", msg("What mixes tokens.")),
        ffn=_choice(registry, "ffn", msg("What mixes channels.")),
        norm=norm,
        residual=_choice(
            registry, "residual", msg("How the blocks join the residual stream."), sections.DEFAULT_TYPES["residual"]
        ),
        memory=_choice(registry, "memory", msg("A memory beside the mixer.")),
    )
    attention = _block_words(registry, "mixer", "attention")
    run = sections.run_of_layers(
        window=_overriding(attention.get("window"), word(["integer", "null"], msg("Visible tokens."), minimum=1)),
        attn_drop=_overriding(attention.get("attn_drop"), word("number", msg("Dropout of attention weights."))),
        activation=word("string", msg("Activation function."), examples=["silu"]),
    )
    merge = _choice(registry, "merge", msg("How the streams become one."))
    entry = sections.schedule_entry(run, merge, _integrator(registry))
    head = _choice(registry, "head", msg("The output head."), sections.DEFAULT_TYPES["head"])
    targets = [target.name for target in registry.targets()]
    compatibility = training.compatibility()
    compatibility["properties"]["compile_target"]["examples"] = targets or [sections.DEFAULT_TARGET]
    properties: Schema = {
        "schema_version": word("integer", msg("Version of the language."), const=sections.SCHEMA_VERSION),
        "let": sections.let(),
        "model": sections.model(),
        "tokenizer_contract": sections.tokenizer_contract(),
        "embedding": _with_positions(sections.embedding(), positions),
        "layer_templates": {
            "type": "object",
            "description": msg("The kinds of layers, by name."),
            "minProperties": 1,
            "examples": [{"decoder": {"mixer": {"type": "attention"}, "ffn": {"type": "gated_mlp"}}}],
            "propertyNames": {"pattern": sections.TEMPLATE_NAME},
            "additionalProperties": template,
        },
        "layer_schedule": {
            "type": "array",
            "description": msg("The layers of the model, from the input to the output."),
            "minItems": 1,
            "items": entry,
            "examples": [[{"template": "decoder", "repeat": 24}]],
        },
        "head": {**head, "examples": [{"type": "causal_lm"}]},
        "training_hints": training.training_hints(),
        "compatibility": compatibility,
        "execution_modes": phases.execution_modes(),
        "transition": phases.transition(),
        "tissue": training.tissue(),
    }
    required = (
        "schema_version",
        "model",
        "tokenizer_contract",
        "embedding",
        "layer_templates",
        "layer_schedule",
        "head",
    )
    schema: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "EulerStack spec",
        **sections.section(msg("One model."), properties, required),
    }
    for fragment in registry.schema_fragments():
        _place(schema, fragment.place)["properties"].update(copy.deepcopy(dict(fragment.properties)))
    reserved: Schema = {RESERVED_KEY: True}
    for namespace in registry.namespaces():
        reserved[f"^{re.escape(namespace.key)}$"] = _closed(namespace.schema, {})
    return _closed(schema, reserved)


def _with_held(registry: Any, primitive: Primitive) -> Schema:
    """The block of a primitive; under the word for those that it holds, names of primitives that hold none."""
    block: Schema = {"type": "object", **(primitive.schema or {})}
    if (held := primitive.holds) is None:
        return block
    names: Schema = {
        "type": "object",
        "description": held.summary,
        "minProperties": held.least,
        "propertyNames": {"pattern": sections.HELD_NAME},
        "additionalProperties": _choice(registry, primitive.kind, msg("One of them."), among=_holds_none),
    }
    words = {held.word: names, **block.get("properties", {})}
    return {**block, "properties": words, "required": [held.word, *block.get("required", ())]}


def _holds_none(primitive: Primitive) -> bool:
    return primitive.holds is None


def _always(primitive: Primitive) -> bool:
    return True


def _choice(
    registry: Any,
    kind: str,
    description: Message,
    default: str | None = None,
    shared: Mapping[str, Any] | None = None,
    among: Callable[[Primitive], bool] = _always,
) -> Schema:
    """A mapping with `type`, the words beside it, and the parameter block of the type.

    `shared` are words that stand beside every type, `among` chooses the types. Without `default`, `type` is required.
    """
    primitives: list[Primitive] = [primitive for primitive in registry.primitives(kind) if among(primitive)]
    names = [primitive.name for primitive in primitives]
    own_type = word("string", msg("Its type."), examples=names)
    if default is not None:
        own_type["default"] = default
    properties = {"type": own_type, **(shared or {})}
    rules = []
    for primitive in primitives:
        words = {**properties, **primitive.inline}
        if primitive.schema is not None:
            words[primitive.block_name] = _with_held(registry, primitive)
        condition: Schema = {"properties": {"type": {"const": primitive.name}}}
        if primitive.name != default:
            condition["required"] = ["type"]
        then: Schema = {"properties": words, "additionalProperties": False}
        # A word without a default must be given, and so must a block that holds such words.
        needed = [name for name, schema in primitive.inline.items() if "default" not in schema]
        if words.get(primitive.block_name, {}).get("required"):
            needed.append(primitive.block_name)
        if needed:
            then["required"] = needed
        rules.append({"if": condition, "then": then})
    schema: Schema = {"type": "object", "description": description, "properties": properties, **_by_type(rules)}
    return schema if default is not None else {**schema, "required": ["type"]}


def _integrator(registry: Any) -> Schema:
    body = word("string", msg("Name of the template of its layers."), examples=["decoder"])
    shared = {**sections.integrator_words(), "body": body}
    chosen = _choice(registry, "integrator", msg("A stage that applies layers several times."), shared=shared)
    return {**chosen, "required": ["type", "steps", "body"]}


def _by_type(rules: list[Schema]) -> Schema:
    """Keywords that leave the words of a mapping to the rule of its type; of an unknown type, any words may stand."""
    return {"allOf": rules, "additionalProperties": True} if rules else {"additionalProperties": True}


def _with_positions(embedding: Schema, positions: Iterable[Primitive]) -> Schema:
    """The embedding with the words of the chosen position; other positions' words are left to compatibility."""
    known = list(positions)
    properties = embedding["properties"]
    properties["positional"]["examples"] = [position.name for position in known]
    foreign: Schema = {name: True for position in known for name in position.inline}
    rules = []
    for position in known:
        condition: Schema = {"properties": {"positional": {"const": position.name}}}
        if position.name != properties["positional"]["default"]:
            condition["required"] = ["positional"]
        words = {**properties, **foreign, **position.inline}
        if position.schema is not None:
            words[position.block_name] = {"type": "object", **position.schema}
        rules.append({"if": condition, "then": {"properties": words, "additionalProperties": False}})
    return {**embedding, **_by_type(rules)}


def _block_words(registry: Any, kind: str, name: str) -> Mapping[str, Any]:
    found = next((primitive for primitive in registry.primitives(kind) if primitive.name == name), None)
    return (found.schema or {}).get("properties", {}) if found else {}


def _overriding(declared: Mapping[str, Any] | None, otherwise: Schema) -> Schema:
    """The schema of a word in an override: as the primitive declares it, but without a default."""
    return {key: value for key, value in (declared or otherwise).items() if key != "default"}


def _place(schema: Schema, place: str) -> Schema:
    """The section that a fragment names, such as "model" or "" for the top level."""
    for step in filter(None, place.split(".")):
        schema = schema["properties"][step]
    return schema


def _closed(schema: Any, reserved: Mapping[str, Any]) -> Any:
    """A copy in which every mapping with words takes no others, except keys in reserved namespaces."""
    if isinstance(schema, (list, tuple)):
        return [_closed(item, reserved) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed_keyword(key, value, reserved) for key, value in schema.items()}
    described = "properties" in closed and ("type" in closed or closed.get("additionalProperties") is False)
    if described and "additionalProperties" not in closed and "unevaluatedProperties" not in closed:
        composed = any(key in closed for key in ("allOf", "anyOf", "oneOf", "if", "$ref"))
        closed["unevaluatedProperties" if composed else "additionalProperties"] = False
    if described or closed.get("type") == "object":
        closed["patternProperties"] = {**reserved, **closed.get("patternProperties", {})}
    return closed


def _closed_keyword(key: str, value: Any, reserved: Mapping[str, Any]) -> Any:
    if key in ("properties", "patternProperties", "$defs", "dependentSchemas"):
        return {name: _closed(item, reserved) for name, item in value.items()}
    if key in ("allOf", "anyOf", "oneOf", "prefixItems", "items", "then", "else", "additionalProperties"):
        return _closed(value, reserved)
    return value


def _translated(value: Any, language: str | None) -> Any:
    """A copy with every description in `language`, English where it is None."""
    if language is None:
        return _rendered(value, str)
    with i18n.using(language):
        return _rendered(value, i18n.declared)


def _rendered(value: Any, translate: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: translate(item.template if isinstance(item, Message) else item)
            if key == "description" and item and isinstance(item, (str, Message))
            else _rendered(item, translate)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_rendered(item, translate) for item in value]
    return value
