"""One file a mixer: the specs that every test of the model runs on, and what each of its fields does.

A file gives `VARIANTS` (name -> spec), `CASES` (field -> `Case`, see `test_every_field_matters`) and, where they apply,
the sets `EAGER_ONLY`, `WITHOUT_ATTENTION`, `TRANSFORMED` (whose rounding depends on other tokens) and `WITHOUT_STATIC`
(which have no static cache) of variant names, and `CHOOSING`: parts of the names of parameters that only choose or
watch, and have no gradient from the logits.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType


def modules() -> list[ModuleType]:
    """The files of this folder, in the order of their names."""
    return [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
