"""`schema` and `plugins` show what this installation knows."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from eulerstack.dsl.source import parse_text
from eulerstack.plugins import CacheLayer, Primitive, hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import PluginSource, get_registry, installed_sources, reset_registry
from eulerstack.presets import load, presets
from tests.cli.conftest import Run


def test_the_schema_summary_names_every_section_primitive_and_default(run: Run) -> None:
    out = run("schema").out
    for words in ("model", "d_model*", "layer_schedule", "attention.window", "rope_theta", "default 10000.0"):
        assert words in out
    for primitive in get_registry().primitives():
        assert f": {primitive.name}\n" in out


def test_the_json_schema_is_one_and_lets_every_preset_pass_as_it_is_written(run: Run) -> None:
    schema = json.loads(run("schema", "--json").out)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    for preset in presets():
        Draft202012Validator(schema).validate(load(preset.path).raw)


def test_an_expression_may_stand_for_a_number_and_for_nothing_else(run: Run, spec: Path) -> None:
    validator = Draft202012Validator(json.loads(run("schema", "--json").out))
    text = spec.read_text(encoding="utf-8")

    def passes(*assignments: str) -> bool:
        return validator.is_valid(parse_text(text, "x.yml", ["let.x=4", *assignments]).raw)

    assert passes("model.d_model=${8 * let.x}", "layer_templates.local.mixer.attention.window=${let.x}")
    assert passes("layer_schedule[0].repeat=${let.x}", "let.y=${let.x / 2}")
    for wrong in ("model.d_model=many", "head.type=${let.x}", "layer_templates.local.ffn.bias=${let.x}"):
        assert not passes(wrong), wrong


def test_every_word_is_listed_with_its_plugin(run: Run) -> None:
    lines = run("plugins", "list").out.splitlines()
    for primitive in get_registry().primitives():
        package, version = get_registry().origin(primitive)
        assert any(line.split()[:4] == [primitive.kind, primitive.name, package, version] for line in lines)


@pytest.fixture
def with_faulty_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> object:
        raise ImportError("no triton here")

    module = types.ModuleType("toy")
    cache = CacheLayer("eulerstack_state")
    claimed = Primitive("vendor.toy.x", "mixer", "a toy", "toy.modules:X", cache=lambda params: cache)
    module.eulerstack_mixers = hookimpl(lambda: [claimed])  # type: ignore[attr-defined]
    other = types.ModuleType("other")
    other.eulerstack_mixers = hookimpl(lambda: [claimed])  # type: ignore[attr-defined]
    sources = [
        *installed_sources(),
        PluginSource("gla", "acme-gla", "0.3", fails),
        PluginSource("one", "toy-one", "1", lambda: module),
        PluginSource("two", "toy-two", "1", lambda: other),
    ]
    monkeypatch.setattr(manager_module, "installed_sources", lambda: sources)
    reset_registry()
    yield  # type: ignore[misc]
    reset_registry()


@pytest.mark.usefixtures("with_faulty_plugins")
def test_a_plugin_that_was_set_aside_is_listed_with_the_reason(run: Run) -> None:
    outcome = run("plugins", "list")
    assert outcome.code == 0 and outcome.err == ""
    assert "acme-gla:gla: broken: " in outcome.out and "no triton here" in outcome.out
    assert "toy-one:one: conflicting: vendor.toy.x" in outcome.out
    data = {record["package"]: record for record in json.loads(run("plugins", "list", "--json").out)}
    assert data["acme-gla"]["state"] == "broken" and "Traceback" in data["acme-gla"]["traceback"]
    assert data["toy-two"]["primitives"] == [{"kind": "mixer", "name": "vendor.toy.x"}]


@pytest.mark.usefixtures("with_faulty_plugins")
def test_strict_mode_fails_every_command_but_the_list(run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("validate", spec).code == 0
    monkeypatch.setenv("EULERSTACK_STRICT_PLUGINS", "1")
    outcome = run("validate", spec)
    assert outcome.code == 1 and outcome.err.startswith("CompatibilityError: ") and "acme-gla" in outcome.err
    assert run("plugins", "list").code == 0


@pytest.mark.usefixtures("with_faulty_plugins")
def test_a_spec_that_needs_a_broken_plugin_is_told_so(run: Run, spec: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("type: attention, attention: {}", "type: vendor.acme.gla"), encoding="utf-8")
    outcome = run("validate", spec)
    assert outcome.code == 1 and outcome.err.startswith("CompatibilityError: ") and "acme-gla" in outcome.err


def test_a_misspelt_name_of_a_plugin_to_do_without_is_told_on_stderr(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_registry", None)
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "mixerz")
    outcome = run("plugins", "list", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)
    assert outcome.err.count("\n") == 1 and "mixerz" in outcome.err and "did you mean mixers?" in outcome.err
