"""What stands in config.json for the keys of reserved namespaces: the values, as their handlers compile them.

A plugin that claims a key may name a function, which gets the value and answers with JSON, or refuses. Torch-free.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from typing import Any

from eulerstack.errors import CompileError, Diagnostic
from eulerstack.ir.types import ModelIR, thaw
from eulerstack.plugins.asking import namespace_fault
from eulerstack.plugins.faults import PLUGIN_ERRORS
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import Namespace
from eulerstack.schema.claims import claimed_key

SEE = "writing-a-plugin.md#a-namespace"


def compiled_extensions(ir: ModelIR) -> dict[str, Any]:
    """{dotted path: value} of every reserved key, the values as the keys' handlers give them.

    Errors: CompileError, located in the spec, with everything that handlers refuse, and for a handler that fails.
    """
    handlers = {namespace.key: namespace for namespace in get_registry().namespaces()}
    compiled: dict[str, Any] = {}
    refused: list[Diagnostic] = []
    for path, value in thaw(ir.extensions).items():
        compiled[path] = value
        key = claimed_key(path, handlers)
        if key is None or handlers[key].compile is None:
            continue
        try:
            answer = _call(handlers[key], value, path, ir)
        except CompileError as error:
            refused += [
                replace(problem, path=problem.path or path, location=problem.location or ir.locations.get(path))
                for problem in error.diagnostics
            ]
            continue
        if answer is not None:
            compiled[path] = answer
    if refused:
        raise CompileError(refused)
    return compiled


def _call(namespace: Namespace, value: Any, path: str, ir: ModelIR) -> Any:
    """The handler's answer, which is JSON; None where it leaves the value as it is."""
    assert namespace.compile is not None
    module, _, name = namespace.compile.partition(":")
    try:
        answer = getattr(import_module(module), name)(value, path, ir)
        # What config.json can't hold must not get as far as the file; tuples become lists here.
        return json.loads(json.dumps(answer, allow_nan=False))
    except CompileError:
        raise
    # The code is a plugin's and may raise or answer anything; the user needs the plugin's name.
    except PLUGIN_ERRORS as error:
        fault = namespace_fault(get_registry(), namespace, error)
        raise CompileError([replace(fault, category=CompileError.category, see=SEE)]) from error
