"""`import eulerstack.plugins.ttt`: the package eulerstack-ttt under the core's name, or how to install it.

The mixer `ttt_layer` is found through its entry point, so that no program needs this import; one that has it fails at
once where the package is missing. `TTT_LAYER` is the declaration; `TTTLayer`, the module, is imported on first use,
because it needs torch.

Errors: ImportError when eulerstack-ttt is not installed
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    TTT_LAYER = import_module("eulerstack_ttt.declarations.ttt").TTT_LAYER
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "eulerstack_ttt":
        raise
    raise ImportError(
        "ttt_layer comes in a package of its own: pip install eulerstack-ttt, "
        "or, in a checkout, pip install -e '.[ttt]'"
    ) from error


def __getattr__(name: str) -> Any:
    if name == "TTTLayer":
        return import_module("eulerstack_ttt.modules.ttt").TTTLayer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
