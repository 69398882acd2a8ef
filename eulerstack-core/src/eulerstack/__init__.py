"""EulerStack: an architecture description language for LLMs.

The public functions are imported on first use, so that `import eulerstack` costs nothing and never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

if TYPE_CHECKING:
    from eulerstack.compiler.compile import compile_to_directory, compile_to_hf_model
    from eulerstack.compiler.cost import count_parameters
    from eulerstack.exported import export_spec
    from eulerstack.ir.normalizer import normalize_to_ir
    from eulerstack.presets import load
    from eulerstack.schema import validate_v2

_HOME = {
    "load": "eulerstack.presets",
    "validate_v2": "eulerstack.schema",
    "normalize_to_ir": "eulerstack.ir.normalizer",
    "export_spec": "eulerstack.exported",
    "count_parameters": "eulerstack.compiler.cost",
    "compile_to_hf_model": "eulerstack.compiler.compile",
    "compile_to_directory": "eulerstack.compiler.compile",
}

__all__ = [
    "__version__",
    "compile_to_directory",
    "compile_to_hf_model",
    "count_parameters",
    "export_spec",
    "load",
    "normalize_to_ir",
    "validate_v2",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eulerstack' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
