"""The layers know only what lies below them, and those that must not import torch do not.

Reads the sources; imports nothing. The direction holds for every import, wherever it stands: at the top, inside a
function, under TYPE_CHECKING. An import inside a function may reach down to torch, which is then needed only by those
who call it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    path.relative_to(root).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for root in (*ROOT.glob("eulerstack-*/src"), *ROOT.glob("eulerstack-plugins/*/src"))
    for path in sorted(root.rglob("*.py"))
}
HEAVY = {"accelerate", "datasets", "matplotlib", "numpy", "safetensors", "tokenizers", "torch", "transformers"}

# Each part of the core and what it may import. What stands above in this table never imports what stands below.
LAYERS: dict[str, set[str]] = {
    "eulerstack.i18n": set(),
    "eulerstack.errors": {"eulerstack.i18n"},
    "eulerstack.dsl": {"eulerstack.errors"},
    "eulerstack.plugins": {"eulerstack.errors", "eulerstack.i18n"},
    "eulerstack.schema": {"eulerstack.errors", "eulerstack.i18n", "eulerstack.dsl", "eulerstack.plugins"},
    "eulerstack.preset_headers": set(),
    "eulerstack.presets": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.plugins", "eulerstack.preset_headers"},
    "eulerstack.ir": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.plugins", "eulerstack.schema"},
    "eulerstack.hf": {"eulerstack.errors", "eulerstack.plugins", "eulerstack.ir"},
    "eulerstack.components": {"eulerstack.hf"},
    "eulerstack.compiler": {"eulerstack.errors", "eulerstack.plugins", "eulerstack.schema", "eulerstack.ir",
                            "eulerstack.hf"},
    "eulerstack.core_plugin": {"eulerstack.errors", "eulerstack.plugins", "eulerstack.compiler.cost",
                               "eulerstack.compiler.phases"},
    "eulerstack.exported": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.ir", "eulerstack.compiler"},
    "eulerstack.testing": {"eulerstack.errors", "eulerstack.i18n", "eulerstack.dsl", "eulerstack.plugins",
                           "eulerstack.schema", "eulerstack.ir", "eulerstack.hf", "eulerstack.compiler"},
    "eulerstack.scaffold": {"eulerstack.errors", "eulerstack.plugins"},
    "eulerstack.cli": {"eulerstack.errors", "eulerstack.i18n", "eulerstack.dsl", "eulerstack.plugins",
                       "eulerstack.schema", "eulerstack.preset_headers", "eulerstack.presets", "eulerstack.ir",
                       "eulerstack.compiler", "eulerstack.exported", "eulerstack.scaffold"},
    "eulerstack.data": {"eulerstack.errors", "eulerstack.i18n", "eulerstack.ir", "eulerstack.compiler",
                        "eulerstack.cli"},
    "eulerstack.sanity": {"eulerstack.errors", "eulerstack.i18n", "eulerstack.ir", "eulerstack.compiler",
                          "eulerstack.hf", "eulerstack.cli"},
}  # fmt: skip
# Every package of plugins, the mixers' included.
PLUGIN_LAYERS: dict[str, set[str]] = {
    "reference": set(),
    "modules": {"eulerstack.hf"},
    "declarations": {"eulerstack.errors", "eulerstack.plugins"},
    "importers": {"eulerstack.errors", "eulerstack.plugins"},
    "rules": {"eulerstack.errors", "eulerstack.plugins", "eulerstack.ir", "{}.declarations"},
    "plugin": {"eulerstack.plugins", "{}.declarations", "{}.importers", "{}.rules"},
    "decompositions": {"eulerstack.errors", "{}.declarations", "{}.modules"},
    "conversion": {"eulerstack.errors", "eulerstack.dsl", "eulerstack.plugins", "eulerstack.ir", "eulerstack.compiler",
                   "eulerstack.exported", "{}.declarations", "{}.decompositions"},
    "__main__": {"eulerstack.errors", "{}.declarations", "{}.conversion"},
}  # fmt: skip
PACKAGES = sorted({module.partition(".")[0] for module in SOURCES} - {"eulerstack"})
LAYERS |= {
    f"{package}.{part}": {name.format(package) for name in below}
    for package in PACKAGES
    for part, below in PLUGIN_LAYERS.items()
    if any(module.startswith(f"{package}.{part}") for module in SOURCES)
}
# (importing module, imported module): why this one import may point upwards.
EXCEPTIONS = {
    (
        "eulerstack.hf.models",
        "eulerstack.compiler.writer",
    ): "a model that is saved writes its own source, which the compiler joins; only at the time of saving",
}
# The code that runs a model or writes one; all else must be importable where there is no torch.
WITH_TORCH = ("eulerstack.hf", "eulerstack.testing", "eulerstack.components",
              "eulerstack.sanity.training", "eulerstack.sanity.watching",
              *(f"{package}.{part}" for package in PACKAGES for part in ("modules", "reference")))  # fmt: skip


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is an `if TYPE_CHECKING:` block."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, node: ast.AST | None = None, everywhere: bool = False) -> Iterator[str]:
    """The modules that `module` imports when it is imported itself; `everywhere`: at any time, or for types alone."""
    for child in ast.iter_child_nodes(node or ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}: relative import"
            if child.module == "eulerstack":
                yield from (f"eulerstack.{alias.name}" for alias in child.names)
            elif child.module:
                yield child.module
                yield from (name for alias in child.names if (name := f"{child.module}.{alias.name}") in SOURCES)
        elif everywhere or not (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(child)
        ):
            yield from imports(module, child, everywhere)


def part(module: str) -> str:
    """The part of the system that a module belongs to: its first two names."""
    return ".".join(module.split(".")[:2])


def belongs(module: str, parts: tuple[str, ...] | set[str]) -> bool:
    """Whether a module is one of `parts`, or lies in one."""
    return any(module == each or module.startswith(f"{each}.") for each in parts)


def upward(module: str) -> set[str]:
    """The imports of a module that its layer may not make; what a package's root offers is for the world outside."""
    allowed = LAYERS[part(module)] | {part(module), "eulerstack.__version__"}
    ours = ("eulerstack", *PACKAGES)
    return {
        name
        for name in imports(module, everywhere=True)
        if belongs(name, ours) and not belongs(name, allowed) and (module, name) not in EXCEPTIONS
    }


def test_every_source_is_in_a_layer() -> None:
    roots = {"eulerstack", *PACKAGES}
    assert {part(module) for module in SOURCES if module not in roots} == set(LAYERS)


def test_a_layer_names_none_that_stands_after_it() -> None:
    order = list(LAYERS)
    assert not {
        (layer, name)
        for layer, below in LAYERS.items()
        for name in below
        if layer.startswith("eulerstack.") and order.index(part(name)) > order.index(layer)
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    wrong = {f"{module} imports {name}" for module in SOURCES if belongs(module, {layer}) for name in upward(module)}
    assert wrong == set()


def test_every_exception_is_an_import_that_is_made() -> None:
    assert {pair for pair in EXCEPTIONS if pair[1] not in imports(pair[0], everywhere=True)} == set()


@pytest.mark.parametrize(
    "text",
    [
        "from eulerstack.compiler.cost import model_cost",
        "import eulerstack.compiler.cost",
        "from eulerstack.compiler import cost",
        "from eulerstack import compiler",
        "from eulerstack import load",
        "import eulerstack",
        "def f():\n    from eulerstack.compiler.cost import model_cost",
        "class A:\n    def f(self):\n        if True:\n            import eulerstack.ir.types",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from eulerstack.ir.types import ModelIR",
        "try:\n    pass\nexcept ImportError:\n    import eulerstack.cli",
        "import eulerstack_mixers.plugin",
    ],
)
def test_an_upward_import_is_noticed_wherever_it_stands(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(text, encoding="utf-8")
    monkeypatch.setitem(SOURCES, "eulerstack.schema.planted", planted)
    assert upward("eulerstack.schema.planted")


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
        if belongs(module, {"eulerstack.compiler"}) and not belongs(module, {"eulerstack.compiler.cost"}):
            continue
        if not belongs(module, WITH_TORCH):
            seen: set[str] = {module}
            found.update(reached(module, (module,)))
    assert found == set()
