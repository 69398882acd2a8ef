"""Compatibility: what is installed, sizes, states, overrides, and plugins whose own code fails."""

from __future__ import annotations

from typing import Any

import pytest

from eulerstack.errors import msg
from eulerstack.plugins import CacheLayer, Cost, Primitive, Problem
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.sources import PluginSource
from tests.schema.words import make_registry, problems_of, source, spec_with, third_party

MIXER = "layer_templates__one__mixer"
BLOCK = f"{MIXER}__vendor.acme.gla"
HERE = "layer_templates.one.mixer"


@pytest.fixture(scope="module")
def registry() -> Any:
    return make_registry()


def compatibility(registry: Any, **changes: Any) -> list[tuple[str, str, str]]:
    """(path, what, fix) of the contradictions in the changed example."""
    found = problems_of(spec_with(**changes), registry)
    assert all(each.category == "CompatibilityError" for each in found), found
    return [(each.path, each.what, each.fix) for each in found]


def test_the_core_alone_names_the_package_to_install() -> None:
    found = problems_of(spec_with(**{"embedding__positional": "rope", MIXER: {"type": "attention"}}), Registry())
    fixes = {each.path: each.fix for each in found}
    assert fixes["layer_templates.one.mixer.type"] == "pip install --upgrade eulerstack-mixers"
    assert fixes["embedding.positional"] == "pip install --upgrade eulerstack-mixers"
    assert "package that provides scale" in fixes["layer_templates.one.norm.type"]


def test_a_broken_plugin_is_named_where_its_word_is_used(registry: Any) -> None:
    def fail() -> object:
        raise ImportError("no kernel for this machine")

    broken = Registry(plugins=[source(object(), "filler"), PluginSource("gpu", "eulerstack-gpu", "2.1", fail)])
    found = problems_of(spec_with(**{MIXER: {"type": "vendor.gpu.fast"}}), broken)
    said = next(each.what for each in found if each.path == f"{HERE}.type")
    assert "eulerstack-gpu 2.1" in said and "no kernel for this machine" in said


def test_a_primitives_own_objection_has_its_place(registry: Any) -> None:
    assert compatibility(registry, **{f"{BLOCK}__rank": 7}) == [
        (f"{HERE}.vendor.acme.gla.rank", "rank must divide d_model", "Type rank: 8")
    ]


def test_states_are_true_of_the_mixer(registry: Any) -> None:
    assert compatibility(registry, layer_templates__one__state={"ssm_state": True, "kv_cache": False}) == []
    found = compatibility(registry, layer_templates__one__state={"ssm_state": False, "kv_cache": True})
    assert [path for path, _, _ in found] == [
        "layer_templates.one.state.ssm_state",
        "layer_templates.one.state.kv_cache",
    ]


def test_words_of_another_position_are_refused(registry: Any) -> None:
    assert compatibility(registry, embedding={"positional": "waves", "wave_base": 3}) == []
    ((path, what, fix),) = compatibility(registry, embedding={"positional": "plain", "wave_base": 3})
    assert path == "embedding.wave_base" and "belongs to waves" in what and "positional: waves" in fix


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ({"norm": {"type": "shift"}}, ""),
        ({"norm": {"position": "sandwich"}}, ""),
        ({"norm": {"position": "post"}}, ""),
        ({"ffn": {"activation": "silu"}}, ".ffn.activation"),
        ({"attention": {"window": 4}}, ".attention"),
        ({"residual": {"scaling": 0.5}}, ".residual.scaling"),
        ({"mixer": {"type": "vendor.acme.composed"}}, ".mixer"),
    ],
)
def test_an_override_changes_values_only(registry: Any, override: Any, path: str) -> None:
    found = compatibility(registry, layer_schedule__0__override=override)
    assert [where for where, _, _ in found] == [f"layer_schedule[0].override{path}"]


def test_an_override_that_keeps_the_count_is_accepted(registry: Any) -> None:
    schedule = [
        {"template": "one", "override": {"norm": {"position": "post"}}},
        {"template": "one", "override": {"ffn": {"activation": "gelu"}, "norm": {"position": "pre"}}},
    ]
    assert compatibility(registry, layer_schedule=schedule) == []


def test_only_the_last_entry_decides_the_final_norm(registry: Any) -> None:
    schedule = [{"template": "one"}, {"template": "one", "override": {"norm": {"position": "post"}}}]
    ((path, what, _),) = compatibility(registry, layer_schedule=schedule)
    assert path == "layer_schedule[1].override" and "parameters from" in what


@pytest.mark.parametrize("function", ["resolve", "checks", "cost"])
def test_a_plugin_whose_code_fails_is_named_and_nothing_else_is_lost(function: str) -> None:
    def fail(*arguments: Any) -> Any:
        raise ZeroDivisionError("in the plugin")

    code: dict[str, Any] = {
        "cost": lambda dims, params, size: Cost(),
        "cache": lambda params: CacheLayer("eulerstack_state"),
        function: fail,
    }
    bad = Primitive(name="vendor.bad.x", kind="mixer", summary="x", module="x:y", schema={"type": "object"}, **code)
    spec = spec_with(**{
        MIXER: {"type": "vendor.bad.x"},
        "layer_schedule": [{"template": "one", "override": {"norm": {"position": "pre"}}}, {"template": "two"}],
    })  # fmt: skip
    found = problems_of(spec, make_registry(third_party(bad)))
    assert [each.path for each in found] == [HERE, "layer_schedule[1].template"]
    assert "vendor.bad.x from other 1.0.0" in found[0].what and "in the plugin" in found[0].what


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("checks", ["text"]),
        ("checks", None),
        ("checks", [Problem("a", "no message", msg("b"), "c")]),  # type: ignore[arg-type]
        ("cost", 7),
    ],
)
def test_a_plugin_whose_code_answers_nonsense_is_named(function: str, answer: Any) -> None:
    code: dict[str, Any] = {
        "cost": lambda dims, params, size: Cost(),
        "cache": lambda params: CacheLayer("eulerstack_state"),
        function: lambda *arguments: answer,
    }
    bad = Primitive(name="vendor.bad.x", kind="mixer", summary="x", module="x:y", schema={"type": "object"}, **code)
    spec = spec_with(**{
        MIXER: {"type": "vendor.bad.x"},
        "layer_schedule": [{"template": "one", "override": {"norm": {"position": "pre"}}}],
    })  # fmt: skip
    (found,) = problems_of(spec, make_registry(third_party(bad)))
    assert found.path == HERE and "vendor.bad.x from other 1.0.0" in found.what
