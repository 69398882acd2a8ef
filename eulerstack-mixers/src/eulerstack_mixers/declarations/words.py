"""Short forms for the JSON Schemas of the declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
REQUIRED: Any = object()
# Activations under transformers' names, where those differ from ours.
ACTIVATION_NAMES = {"swiglu": "silu", "geglu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def hidden_act(params: Mapping[str, Any], model: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json's name for the activation of a feed-forward block."""
    activation = params["activation"]
    return {"hidden_act": ACTIVATION_NAMES.get(activation, activation)}


def _with_default(schema: Schema, default: Any) -> Schema:
    return schema if default is REQUIRED else {**schema, "default": default}


def boolean(description: str, default: Any) -> Schema:
    """A true/false word."""
    return _with_default({"type": "boolean", "description": description}, default)


def integer(description: str, default: Any = REQUIRED, *, nullable: bool = False, **bounds: int) -> Schema:
    """A whole number; `nullable` admits null, whose meaning the description gives."""
    kind: Any = ["integer", "null"] if nullable else "integer"
    return _with_default({"type": kind, **bounds, "description": description}, default)


def number(description: str, default: Any = REQUIRED, *, nullable: bool = False, **bounds: float) -> Schema:
    """A number; `nullable` admits null, whose meaning the description gives."""
    kind: Any = ["number", "null"] if nullable else "number"
    return _with_default({"type": kind, **bounds, "description": description}, default)


def choice(description: str, names: tuple[str, ...], default: Any = REQUIRED) -> Schema:
    """One of several names."""
    return _with_default({"type": "string", "enum": list(names), "description": description}, default)


def block(properties: Schema, description: str = "") -> Schema:
    """The schema of a parameter block: these words and no others; those without a default are required."""
    required = [name for name, schema in properties.items() if "default" not in schema]
    return {
        "type": "object",
        **({"description": description} if description else {}),
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }
