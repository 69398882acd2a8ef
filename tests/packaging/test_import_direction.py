"""The layers know only what lies below them, and those that must not import torch do not.

Reads the sources; imports nothing. An import inside a function is made when a command needs it, so it may reach
down to torch; reaching up to a higher layer is wrong wherever it stands.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    path.relative_to(root).with_suffix("").as_posix().replace("/", "."): path
    for root in (*ROOT.glob("eulerstack-*/src"), *ROOT.glob("eulerstack-plugins/*/src"))
    for path in sorted(root.rglob("*.py"))
}
HEAVY = {"accelerate", "numpy", "safetensors", "tokenizers", "torch", "transformers"}

# Each part and what it may import at the top of a file. What stands above in this table may use what stands below.
LAYERS: dict[str, set[str]] = {
    "eulerstack.errors": set(),
    "eulerstack.i18n": set(),
    "eulerstack.dsl": {"eulerstack.errors"},
    "eulerstack.plugins": {"eulerstack.errors", "eulerstack.i18n"},
    "eulerstack.schema": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.plugins"},
    "eulerstack.ir": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.plugins", "eulerstack.schema"},
    "eulerstack_mixers.declarations": {
        "eulerstack.errors",
        "eulerstack.plugins",
        "eulerstack_mixers.modules.placement",  # a table that the cost of a norm and the layer's module both read
    },
    "eulerstack_mixers.importers": {"eulerstack.errors", "eulerstack.plugins"},
    "eulerstack_mixers.plugin": {
        "eulerstack.plugins",
        "eulerstack_mixers.declarations",
        "eulerstack_mixers.importers",
    },
    "eulerstack_mixers.modules": {"eulerstack.hf"},
    "eulerstack_mixers.reference": set(),
    "eulerstack_ttt.declarations": {"eulerstack.errors", "eulerstack.plugins"},
    "eulerstack_ttt.plugin": {"eulerstack.plugins", "eulerstack_ttt.declarations"},
    "eulerstack_ttt.modules": {"eulerstack.hf"},
    "eulerstack_ttt.reference": set(),
}
# The code that runs a model or writes one; all else must be importable where there is no torch.
WITH_TORCH = ("eulerstack.hf", "eulerstack.testing", "eulerstack.components", "eulerstack_mixers.modules",
              "eulerstack_mixers.reference", "eulerstack_ttt.modules", "eulerstack_ttt.reference")  # fmt: skip


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is an `if TYPE_CHECKING:` block."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, node: ast.AST | None = None) -> Iterator[str]:
    """The modules that `module` imports when it is imported itself."""
    for child in ast.iter_child_nodes(node or ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 or module.startswith("eulerstack_mixers.modules"), f"{module}: relative import"
            if child.module and child.level == 0:
                yield child.module
                yield from (name for alias in child.names if (name := f"{child.module}.{alias.name}") in SOURCES)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_type_checking(child):
            yield from imports(module, child)


def part(module: str) -> str:
    """The part of the system that a module belongs to: its first two names."""
    return ".".join(module.split(".")[:2])


def belongs(module: str, parts: tuple[str, ...] | set[str]) -> bool:
    """Whether a module is one of `parts`, or lies in one."""
    return any(module == each or module.startswith(f"{each}.") for each in parts)


def test_there_are_sources_in_every_layer() -> None:
    assert set(LAYERS) - {part(module) for module in SOURCES} == set()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    wrong = {
        f"{module} imports {name}"
        for module in SOURCES
        if belongs(module, {layer})
        for name in imports(module)
        if name.startswith("eulerstack") and name != "eulerstack" and not belongs(name, LAYERS[layer] | {layer})
    }
    assert wrong == set()


def test_the_torch_free_parts_import_nothing_heavy_even_through_others() -> None:
    def reached(module: str, path: tuple[str, ...]) -> Iterator[str]:
        for name in imports(module):
            if name.partition(".")[0] in HEAVY:
                yield " imports ".join((*path, name))
            elif name in SOURCES and name not in seen:
                seen.add(name)
                yield from reached(name, (*path, name))

    found: set[str] = set()
    for module in SOURCES:
        top = module.removesuffix(".__init__")
        if belongs(top, {"eulerstack.compiler"}) and not belongs(top, {"eulerstack.compiler.cost"}):
            continue
        if not belongs(top, WITH_TORCH):
            seen: set[str] = {module}
            found.update(reached(module, (module,)))
    assert found == set()
