"""docs/reference/hooks.md: every hook and every declaration, from their signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pages.markdown import GENERATED, join, table

if TYPE_CHECKING:
    from eulerstack.plugins.deprecation import HookInfo

INTRODUCTION = """\
# Hooks

A plugin is a module (or object) registered under the entry-point group `eulerstack`, with functions of these names
decorated by `eulerstack.plugins.hookimpl`. Every hook returns an iterable of declarations, and none may import torch:
a declaration names the class that computes it as text (`"package.module:Class"`), which is imported only when a model
is built or exported. [Writing a plugin](../writing-a-plugin.md) walks through a complete package.

A plugin may say which version of this interface it is written for by `EULERSTACK_API_VERSION = {version}` in its
module; another version is set aside with that reason. The version grows when a hook or a field is removed, not when
one is added; what is to go is deprecated first, works on, and is named by `eulerstack plugins doctor`
([why](../decisions/0039-deprecation.md)). Third parties use names of the form `vendor.<name>.<primitive>`."""


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
    rows = [
        [f"[`{name}`](#{name})", f"`{returned(function)}`", since(hookspecs.HOOKS[name])]
        for name, function in functions.items()
    ]
    return join(
        GENERATED,
        INTRODUCTION.format(version=hookspecs.API_VERSION),
        table(["hook", "each item", "since"], rows),
        *(hook_section(name, function, hookspecs.HOOKS[name]) for name, function in functions.items()),
        "# Declarations",
        "All are frozen dataclasses of `eulerstack.plugins`.",
        *(declaration_section(cls) for cls in declarations()),
    )


def returned(function: Callable[..., Any]) -> str:
    """The type of the items that a hook returns."""
    annotation = str(inspect.signature(function).return_annotation)
    return annotation.partition("[")[2].rpartition("]")[0]


def since(info: HookInfo) -> str:
    """The version that added a hook, and what became of it."""
    if not info.deprecated:
        return info.since
    instead = f", use `{info.instead}`" if info.instead else ""
    return f"{info.since}, deprecated in {info.deprecated}{instead}"


def hook_section(name: str, function: Callable[..., Any], info: HookInfo) -> str:
    """A heading, the signature, the docstring and the marks."""
    signature = f"def {name}{inspect.signature(function)}"
    text = f"{inspect.getdoc(function)} Since {since(info)}."
    return join(f"## {name}", f"```python\n{signature.replace(chr(39), '')}\n```", text)


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
