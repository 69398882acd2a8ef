"""docs/reference/hooks.md: every hook and every declaration, from their signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pages.markdown import GENERATED, join, table

INTRODUCTION = """\
# Hooks

A plugin is a module (or object) registered under the entry-point group `eulerstack`, with functions of these names
decorated by `eulerstack.plugins.hookimpl`. Every hook returns an iterable of declarations, and none may import torch:
a declaration names the class that computes it as text (`"package.module:Class"`), which is imported only when a model
is built or exported. `docs/writing-a-plugin.md` walks through a complete package.

A plugin may say which version of this interface it is written for by `EULERSTACK_API_VERSION = {version}` in its
module; another version is set aside with that reason. Third parties use names of the form
`vendor.<name>.<primitive>`."""


def hook_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The hooks that a hookspec module specifies, in the order they are written."""
    return {
        name: function
        for name, function in vars(module).items()
        if name.startswith("eulerstack_") and callable(function)
    }


def declarations() -> list[type]:
    """The declaration classes that plugin authors import, in the order they are defined."""
    from eulerstack import plugins
    from eulerstack.plugins import primitive

    classes = [getattr(plugins, name) for name in plugins.__all__]
    dataclass_types = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    order = list(vars(primitive))
    return sorted(dataclass_types, key=lambda cls: order.index(cls.__name__))


def page() -> str:
    """The page's text."""
    from eulerstack.plugins import hookspecs

    functions = hook_functions(hookspecs)
    rows = [[f"[`{name}`](#{name})", f"`{returned(function)}`"] for name, function in functions.items()]
    return join(
        GENERATED,
        INTRODUCTION.format(version=hookspecs.API_VERSION),
        table(["hook", "each item"], rows),
        *(hook_section(name, function) for name, function in functions.items()),
        "# Declarations",
        "All are frozen dataclasses of `eulerstack.plugins`.",
        *(declaration_section(cls) for cls in declarations()),
    )


def returned(function: Callable[..., Any]) -> str:
    """The type of the items that a hook returns."""
    annotation = str(inspect.signature(function).return_annotation)
    return annotation.partition("[")[2].rpartition("]")[0]


def hook_section(name: str, function: Callable[..., Any]) -> str:
    """A heading, the signature and the docstring."""
    signature = f"def {name}{inspect.signature(function)}"
    return join(f"## {name}", f"```python\n{signature.replace(chr(39), '')}\n```", inspect.getdoc(function) or "")


def declaration_section(cls: type) -> str:
    """A heading, the docstring and a table of fields."""
    rows = [[f"`{field.name}`", f"`{field.type}`", default(field)] for field in dataclasses.fields(cls)]
    return join(
        f"## {cls.__name__}",
        f"```text\n{inspect.getdoc(cls)}\n```",
        table(["field", "type", "default"], rows),
    )


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default in words."""
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    if callable(field.default):
        return inspect.getdoc(field.default) or "built in"
    return f"`{field.default!r}`"
