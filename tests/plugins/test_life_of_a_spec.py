"""The diagram of a spec's life is true: of the hooks, of the declarations' fields, and of a run that notes who asks."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import eulerstack as es
from eulerstack.cli.describe import describe
from eulerstack.compiler.compile import compile_ir
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins import Importer, Namespace, Primitive, Rule, Target, hookimpl, hookspecs, manager
from eulerstack.plugins.manager import PluginSource, Registry
from eulerstack.plugins.sources import core_sources, installed_sources
from eulerstack.schema import report
from eulerstack.schema.compatibility import check_compatibility
from eulerstack.schema.validate import validate_structure

ROOT = Path(__file__).resolve().parents[2]
HOOKS = {name.removeprefix("eulerstack_") for name in vars(hookspecs) if name.startswith("eulerstack_")}
# Functions named as text, which the stages import; and a family's, which no compile asks.
NOT_TRACED = {"Namespace.compile", "Target.function", "Primitive.module"}


@pytest.fixture(scope="module")
def life() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "tools"))
    from pages import life as module

    yield module
    sys.path.remove(str(ROOT / "tools"))


def test_every_hook_is_in_the_picture_and_nothing_else(life: Any) -> None:
    named = {hook for stage in life.STAGES for hook in stage.hooks}
    assert named | set(life.EVERYWHERE) == HOOKS
    drawn = set(re.findall(r"\w+", life.picture()))
    assert drawn >= HOOKS
    assert len({stage.key for stage in life.STAGES}) == len(life.STAGES)


def test_every_function_of_a_declaration_is_asked_in_one_stage(life: Any) -> None:
    functions = {
        f"{kind.__name__}.{field.name}"
        for kind in (Primitive, Namespace, Rule, Target, Importer)
        for field in dataclasses.fields(kind)
        if "Callable" in str(field.type) or (field.name in ("compile", "function", "module"))
    }
    asked = [name for stage in life.STAGES for name in stage.asks]
    assert sorted(asked) == sorted(functions)


class Notes:
    """Who was asked first in which stage."""

    def __init__(self) -> None:
        self.stage = ""
        self.first: dict[str, str] = {}

    def note(self, name: str, function: Callable[..., Any], *given: Any, **words: Any) -> Any:
        self.first.setdefault(name, self.stage)
        return function(*given, **words)

    def noted(self, declaration: Any) -> Any:
        """The declaration with every function of it noting that it was asked."""
        kind = type(declaration).__name__
        changed = {
            field.name: partial(self.note, f"{kind}.{field.name}", getattr(declaration, field.name))
            for field in dataclasses.fields(declaration)
            if callable(getattr(declaration, field.name))
        }
        return dataclasses.replace(declaration, **changed)

    def source(self, source: PluginSource) -> PluginSource:
        """The plugin with such declarations."""
        plugin, module = source.load(), types.ModuleType(source.name)
        for hook in (f"eulerstack_{name}" for name in HOOKS if name != "importers"):
            if hasattr(plugin, hook):
                items = [self.noted(item) for item in getattr(plugin, hook)()]
                setattr(module, hook, hookimpl(lambda items=items: items))
        return dataclasses.replace(source, load=lambda: module)


def test_a_run_asks_everybody_where_the_picture_says(life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "toy_plugin" / "src"))
    from eulerstack_toy import plugin as toy

    notes = Notes()
    theirs = PluginSource("toy", "eulerstack-toy", "0.1.0", lambda: toy)
    monkeypatch.setattr(manager, "core_sources", lambda: [notes.source(source) for source in core_sources()])
    registry = Registry([notes.source(source) for source in (*installed_sources(), theirs)])
    assert not registry.faults()
    monkeypatch.setattr(manager, "_registry", registry)

    specs: list[Any] = []
    irs: list[Any] = []

    def both(stage: str, step: Callable[[int], object]) -> None:
        notes.stage = stage
        for number in (0, 1):
            step(number)

    presets = ("toy", "arch_expert_kitchen_sink")
    both("load", lambda number: specs.append(es.load(presets[number])))
    both("structure", lambda number: validate_structure(specs[number], registry))
    both("compatibility", lambda number: check_compatibility(specs[number], registry))
    both("normalise", lambda number: irs.append(normalize_to_ir(specs[number], known_valid=True)))
    both("report", lambda number: report(irs[number], registry, specs[number]))
    both("explain", lambda number: describe(specs[number], irs[number]))
    both("config", lambda number: compile_ir(irs[number]))
    expected = {name: stage.key for stage in life.STAGES for name in stage.asks
                if name not in NOT_TRACED and stage.path == "main"}  # fmt: skip
    assert notes.first == expected
