"""`import eulerstack.plugins.ode`: the package eulerstack-ode under the core's name, or how to install it.

The integrator `ode_adaptive` is found through its entry point, so that no program needs this import; one that has it
fails at once where the package is missing. `ODE_ADAPTIVE` is the declaration; `AdaptiveSteps`, the module, is imported
on first use, because it needs torch.

Errors: ImportError when eulerstack-ode is not installed
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    ODE_ADAPTIVE = import_module("eulerstack_ode.declarations.adaptive").ODE_ADAPTIVE
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "eulerstack_ode":
        raise
    raise ImportError(
        "ode_adaptive comes in a package of its own: pip install eulerstack-ode, "
        "or, in a checkout, pip install -e '.[ode]'"
    ) from error


def __getattr__(name: str) -> Any:
    if name == "AdaptiveSteps":
        return import_module("eulerstack_ode.modules.adaptive").AdaptiveSteps
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
