"""Every hook is documented, typed and collected by the registry."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from eulerstack.plugins import (
    MEMORY_WORDS,
    CacheLayer,
    Catalog,
    Importer,
    Namespace,
    PresetFolder,
    Primitive,
    Rule,
    SchemaFragment,
    Target,
    hookimpl,
    hookspecs,
)
from eulerstack.plugins.contributions import KIND_OF_HOOK, TYPE_OF_HOOK
from eulerstack.plugins.manager import PluginSource, Registry
from eulerstack.plugins.primitive import KINDS

HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("eulerstack_")}

NEEDED: dict[str, dict[str, Any]] = {
    "mixer": {"cache": lambda params: CacheLayer("eulerstack_state")},
    "residual": {"norm_slots": lambda position, has_ffn: ("mixer_norm",)},
    "memory": {"cache": lambda params: CacheLayer("eulerstack_state"), "inline": MEMORY_WORDS},
}
EXAMPLES: dict[str, Any] = {
    **{
        hook: Primitive(f"vendor.acme.{kind}", kind, "an example", "acme.modules:Example", **NEEDED.get(kind, {}))  # type: ignore[arg-type]
        for hook, kind in KIND_OF_HOOK.items()
    },
    "eulerstack_schema_fragments": SchemaFragment("model", {"vendor.acme.width": {"type": "integer"}}),
    "eulerstack_namespaces": Namespace("vendor.acme.telemetry", {"type": "object"}, "an example"),
    "eulerstack_rules": Rule("acme_width", "an example", lambda ir: ()),
    "eulerstack_presets": PresetFolder("/nowhere"),
    "eulerstack_messages": Catalog("acme", "/nowhere"),
    "eulerstack_targets": Target("vendor.acme.onnx", "an example", "acme.onnx:write"),
    "eulerstack_importers": Importer("acme", "Acme", "an example", to_spec=dict, to_config=lambda ir: {}, rules=()),
}
COLLECTED = {
    "eulerstack_schema_fragments": Registry.schema_fragments,
    "eulerstack_namespaces": Registry.namespaces,
    "eulerstack_rules": Registry.rules,
    "eulerstack_presets": Registry.presets,
    "eulerstack_messages": Registry.catalogs,
    "eulerstack_targets": Registry.targets,
    "eulerstack_importers": Registry.importers,
    **dict.fromkeys(KIND_OF_HOOK, Registry.primitives),
}


def test_the_registry_knows_every_hook_and_kind() -> None:
    assert set(TYPE_OF_HOOK) == set(HOOKS) == set(hookspecs.HOOKS)
    assert sorted(KIND_OF_HOOK.values()) == sorted(KINDS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_what_it_is_for_and_since_when(hook: str) -> None:
    assert inspect.getdoc(HOOKS[hook])
    assert re.fullmatch(r"1\.\d+", hookspecs.HOOKS[hook].since)
    returns = inspect.signature(HOOKS[hook]).return_annotation
    assert TYPE_OF_HOOK[hook].__name__ in str(returns)


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_returns_is_what_the_registry_hands_out(hook: str) -> None:
    module = types.ModuleType("acme")
    example = EXAMPLES[hook]
    setattr(module, hook, hookimpl(lambda: iter([example])))
    registry = Registry([PluginSource("acme", "acme", "1.0", lambda: module)])
    assert example in COLLECTED[hook](registry)  # type: ignore[operator]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_shown_in_the_example(hook: str) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert f"## {hook}\n" in (docs / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert f"def {hook}(" in (docs / "writing-a-plugin.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("declaration", [*dict.fromkeys(TYPE_OF_HOOK.values())], ids=lambda each: each.__name__)
def test_every_field_of_a_declaration_is_documented(declaration: type) -> None:
    text = inspect.getdoc(declaration) or ""
    missing = [each.name for each in fields(declaration) if not re.search(rf"\b{each.name}\b", text)]
    assert missing == []
