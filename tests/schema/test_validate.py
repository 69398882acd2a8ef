"""Structure: the language's types, third parties' blocks, reserved namespaces, and faults of plugins' schemas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from eulerstack.dsl.source import parse_text
from eulerstack.plugins import CacheLayer, Namespace, Primitive, SchemaFragment, hookimpl
from tests.schema.words import SPEC, make_registry, problems_of, source, spec_with

MIXER = "layer_templates__one__mixer"
BLOCK = f"{MIXER}__vendor.acme.gla"
HERE = "layer_templates.one.mixer"


@pytest.fixture(scope="module")
def registry() -> Any:
    return make_registry()


def structure(registry: Any, **changes: Any) -> list[tuple[str, str, str]]:
    """(path, what, fix) of the structural problems of the changed example."""
    found = problems_of(spec_with(**changes), registry, compatibility=False)
    assert all(each.category == "ValidationError" and each.location is None for each in found)
    return [(each.path, each.what, each.fix) for each in found]


def test_the_example_is_valid_as_a_plain_mapping(registry: Any) -> None:
    assert problems_of(SPEC, registry) == []


@pytest.mark.parametrize("value", [True, 4.0, "4", None, [4], {"x": 4}])
def test_a_third_partys_integer_is_an_integer(registry: Any, value: Any) -> None:
    ((path, _, _),) = structure(registry, **{f"{BLOCK}__rank": value})
    assert path == f"{HERE}.vendor.acme.gla.rank"


def test_a_third_partys_misspelt_word_is_corrected(registry: Any) -> None:
    ((path, what, fix),) = structure(registry, **{f"{BLOCK}__gat": {}})
    assert (path, what, fix) == (f"{HERE}.vendor.acme.gla.gat", "unknown key", "Type gate instead of gat")


def test_mappings_inside_a_third_partys_block_are_closed_too(registry: Any) -> None:
    ((path, what, _),) = structure(registry, **{f"{BLOCK}__gate": {"bias": True, "depth": 3}})
    assert (path, what) == (f"{HERE}.vendor.acme.gla.gate.depth", "unknown key")


def test_a_misspelt_required_word_is_one_problem(registry: Any) -> None:
    ((path, _, fix),) = structure(registry, **{BLOCK: {"rnk": 4}})
    assert path.endswith(".rnk") and "Type rank" in fix


@pytest.mark.parametrize(
    ("value", "what", "fix"),
    [
        (-1, "must be at least 0, not -1", "at least 0"),
        ("learnt", "must be one of learned, fixed", "decay: learned"),
        ([1], "must be a number or text, not [1]", "Type decay: 1"),
        (None, "is empty", "Type a number or text"),
    ],
)
def test_of_alternatives_the_one_meant_is_explained(registry: Any, value: Any, what: str, fix: str) -> None:
    ((path, said, advice),) = structure(registry, **{f"{BLOCK}__decay": value})
    assert path.endswith(".decay") and what in said and fix in advice


def test_words_that_depend_on_others_are_known_only_beside_them(registry: Any) -> None:
    composed = {"type": "vendor.acme.composed", "vendor.acme.composed": {"mode": "a", "speed": 1.5}}
    assert structure(registry, **{MIXER: composed}) == []
    composed["vendor.acme.composed"]["mode"] = "b"  # type: ignore[index]
    ((path, what, _),) = structure(registry, **{MIXER: composed})
    assert path.endswith(".speed") and what == "unknown key"
    composed["vendor.acme.composed"] = {"mode": "a", "speed": "fast"}
    ((path, what, _),) = structure(registry, **{MIXER: composed})
    assert path.endswith(".speed") and "must be a number" in what


def test_a_block_of_another_third_partys_type_is_refused(registry: Any) -> None:
    ((path, what, fix),) = structure(registry, **{f"{MIXER}__vendor.acme.composed": {}})
    assert path == f"{HERE}.vendor.acme.composed"
    assert "only the block of the chosen type" in what and "Delete vendor.acme.composed" in fix


def test_reserved_keys_may_stand_in_every_mapping(registry: Any) -> None:
    places = (
        "", "model__", "embedding__", "head__", "tokenizer_contract__", "training_hints__", "compatibility__",
        "layer_templates__one__", f"{MIXER}__", f"{BLOCK}__", f"{BLOCK}__gate__", "layer_templates__one__ffn__",
        "layer_templates__one__norm__", "layer_templates__one__residual__", "layer_templates__one__state__",
        "layer_schedule__0__", "layer_schedule__0__override__norm__",
    )  # fmt: skip
    for key in ("experimental.x", "future.y.z", "vendor.other.w"):
        changes = {f"{place}{key}": {"anything": [None, True, "x"]} for place in places}
        assert structure(registry, **changes) == []


@pytest.mark.parametrize(
    "key", ["experimental", "future.", "vendor.x", "vendor..x", "vendor", "experimental..", "Vendor.a.b"]
)
def test_what_only_looks_reserved_is_unknown(registry: Any, key: str) -> None:
    found = structure(registry, **{f"model__{key}": 1})
    assert len(found) == (0 if key in ("experimental..",) else 1), found


def test_a_claimed_namespace_is_checked_by_its_own_schema(registry: Any) -> None:
    assert structure(registry, **{"vendor.acme.telemetry": {"endpoint": "x"}}) == []
    found = structure(registry, **{"model__vendor.acme.telemetry": {"endpoint": 3, "port": 1}})
    assert {path for path, _, _ in found} == {
        "model.vendor.acme.telemetry.port",
        "model.vendor.acme.telemetry.endpoint",
    }


def test_a_fragments_word_is_checked_where_it_belongs(registry: Any) -> None:
    assert structure(registry, **{"model__vendor.acme.budget": 3}) == []
    ((path, what, _),) = structure(registry, **{"model__vendor.acme.budget": 0})
    assert path == "model.vendor.acme.budget" and "at least 1" in what


def test_problems_come_in_the_order_of_the_file(registry: Any) -> None:
    text = "schema_version: 2\nzzz: 1\nmodel: {name: 3, d_model: x}\nhead: []\nlayer_schedule: {}\n"
    lines = [each.location.line for each in problems_of(parse_text(text, "m.yml"), registry)]
    assert lines == sorted(lines) and set(lines) >= {1, 2, 3, 4, 5}


def test_a_plugin_whose_schema_is_faulty_is_named() -> None:
    bad = Primitive(name="vendor.bad.x", kind="mixer", summary="x", module="x:y",
                    cache=lambda params: CacheLayer("eulerstack_state"),
                    schema={"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}})  # fmt: skip
    spec = spec_with(**{MIXER: {"type": "vendor.bad.x", "vendor.bad.x": {"a": "b"}}})

    class Plugin:
        @hookimpl
        def eulerstack_mixers(self) -> Any:
            return [bad]

    # The schemas of third parties are looked at when they are loaded, those of ours are not.
    (found,) = problems_of(spec, make_registry(source(Plugin(), "eulerstack-ode")))
    assert found.category == "CompatibilityError"
    assert "vendor.bad.x from eulerstack-ode" in found.what and "eulerstack-ode" in found.fix


def test_validation_never_imports_torch() -> None:
    program = (
        "import sys\nfrom eulerstack.schema import validate_v2\nfrom eulerstack.errors import EulerStackError\n"
        "try:\n    validate_v2({'schema_version': 1})\nexcept EulerStackError: pass\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["fragment", "namespace"])
def test_a_plugin_whose_own_words_have_a_faulty_schema_is_named(kind: str) -> None:
    faulty = {"$ref": "#/$defs/nowhere"}

    class Plugin:
        @hookimpl
        def eulerstack_namespaces(self) -> Any:
            return [Namespace("vendor.bad.x", faulty, "x")] if kind == "namespace" else []

        @hookimpl
        def eulerstack_schema_fragments(self) -> Any:
            return [SchemaFragment("head", {"vendor.bad.x": faulty})] if kind == "fragment" else []

    (found,) = problems_of(spec_with(**{"head__vendor.bad.x": 1}), make_registry(source(Plugin(), "eulerstack-ode")))
    assert found.category == "CompatibilityError" and found.path == "head.vendor.bad.x"
    assert "vendor.bad.x from eulerstack-ode" in found.what
