"""Words that this package adds to the language: a training hint, and a key that is compiled into config.json."""

from __future__ import annotations

from typing import Any

from eulerstack.errors import CompileError, Diagnostic, Message
from eulerstack.plugins import Namespace, SchemaFragment

LEARNING_RATE = SchemaFragment(
    "training_hints",
    {
        "vendor.toy.learning_rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 0.001,
            "description": "Learning rate that the toy trainer starts from.",
        }
    },
)

TELEMETRY = Namespace(
    key="vendor.toy.telemetry",
    schema={
        "type": "object",
        "required": ["endpoint"],
        "properties": {
            "endpoint": {"type": "string", "description": "Where figures go."},
            "every": {"type": "integer", "minimum": 1, "default": 100, "description": "Steps between two reports."},
        },
    },
    summary="where a training run reports to",
    compile="eulerstack_toy.words:compile_telemetry",
)


def compile_telemetry(value: dict[str, Any], path: str, ir: Any) -> dict[str, Any]:
    """Names the run after the model; refuses an endpoint that is not encrypted."""
    if not value["endpoint"].startswith("https://"):
        raise CompileError(
            [
                Diagnostic(
                    "CompileError",
                    Message("figures may not leave unencrypted", (), "eulerstack_toy"),
                    Message("Type an endpoint that begins with https://", (), "eulerstack_toy"),
                    "writing-a-plugin.md#a-namespace",
                )
            ]
        )
    return {**value, "run": ir.model["name"]}
