"""What is asked of third parties' declarations beyond the contract: lawful names, and schemas that stand alone.

This project's own are held to the same by a test, so that no command has to do it at every start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import Message, msg
from eulerstack.plugins.contributions import Contribution
from eulerstack.plugins.faults import PluginFault

VENDOR_NAME = re.compile(r"vendor\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
# References would point into the one schema that is made of all plugins' schemas.
REFERENCES = frozenset({"$ref", "$dynamicRef", "$id", "$anchor", "$dynamicAnchor"})


def check_third_party(contribution: Contribution) -> None:
    """Raises PluginFault unless names lie in `vendor.<name>.*` and schemas are JSON Schema that stands alone."""
    for space, name in contribution.claims():
        if space != "rule" and not VENDOR_NAME.fullmatch(name):
            raise PluginFault(
                msg("the name {name} ({space}) lies outside vendor.<name>.*, where third parties' names belong",
                    name=name, space=space)
            )  # fmt: skip
    for primitive in contribution.primitives():
        if primitive.block_name != primitive.name:
            raise PluginFault(
                msg("the block of {name} is called {block}, but a third party's block bears the type's name",
                    name=primitive.name, block=primitive.block_name)
            )  # fmt: skip
        if primitive.schema is not None and primitive.schema.get("type", "object") != "object":
            raise PluginFault(msg("the schema of {name} is not of type object", name=primitive.name))
    for name, schema in _schemas(contribution):
        check_schema(name, schema)


def check_schema(name: str, schema: Mapping[str, Any]) -> None:
    """Raises PluginFault unless `schema` is JSON Schema that stands alone, with defaults that it allows itself."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    plain = _as_json(name, schema)
    try:
        Draft202012Validator.check_schema(plain)
    except SchemaError as error:
        raise PluginFault(
            msg("the schema of {name} is not JSON Schema: {error}", name=name, error=error.message)
        ) from error
    for word, inner in plain.get("properties", {}).items():
        if not isinstance(inner, dict):
            raise PluginFault(msg("the schema of {name} is not a mapping", name=f"{name}.{word}"))
        if "default" in inner and not Draft202012Validator(inner).is_valid(inner["default"]):
            raise PluginFault(msg("the default of {name} is not what its own schema allows", name=f"{name}.{word}"))


def _as_json(name: str, value: Any) -> Any:
    """`value` as JSON holds it, sentences as text; PluginFault for what has no place in a schema."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key in REFERENCES:
                raise PluginFault(msg("the schema of {name} holds {what}", name=name, what=repr(key)[:80]))
        return {key: _as_json(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(name, item) for item in value]
    if isinstance(value, Message):
        return value.template
    number = isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
    if number or value is None or isinstance(value, str):
        return value
    raise PluginFault(msg("the schema of {name} holds {what}", name=name, what=repr(value)[:80]))


def _schemas(contribution: Contribution) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for primitive in contribution.primitives():
        if primitive.schema is not None:
            yield primitive.name, primitive.schema
        if primitive.inline:
            yield primitive.name, {"properties": primitive.inline}
    for namespace in contribution.items.get("eulerstack_namespaces", ()):
        yield namespace.key, namespace.schema
    for fragment in contribution.items.get("eulerstack_schema_fragments", ()):
        yield fragment.place, {"properties": fragment.properties}
