"""`import eulerstack.plugins.titans`: the package eulerstack-titans under the core's name, or how to install it.

Its memories are found through their entry point, so that no program needs this import; one that has it fails at once
where the package is missing. `NEURAL_MEMORY`, `ASSOCIATIVE` and `RETRIEVAL` are the declarations; the modules
`NeuralMemory`, `AssociativeMemory` and `RetrievalMemory` are imported on first use, because they need torch.

Errors: ImportError when eulerstack-titans is not installed
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    _plugin = import_module("eulerstack_titans.plugin")
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "eulerstack_titans":
        raise
    raise ImportError(
        "neural_memory, associative and retrieval come in a package of their own: pip install eulerstack-titans, "
        "or, in a checkout, pip install -e '.[titans]'"
    ) from error

NEURAL_MEMORY, ASSOCIATIVE, RETRIEVAL = _plugin.NEURAL_MEMORY, _plugin.ASSOCIATIVE, _plugin.RETRIEVAL
_FILES = {"NeuralMemory": "neural_memory", "AssociativeMemory": "associative", "RetrievalMemory": "retrieval"}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"eulerstack_titans.modules.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
