"""The assembled schema: valid, closed, described, and the same whatever the order of the plugins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from eulerstack.plugins.manager import Registry
from eulerstack.schema.assemble import assemble
from eulerstack.schema.validate import _validator_class
from tests.schema.words import Acme, Own, make_registry, source


@pytest.fixture(scope="module", params=["small", "real"])
def registry(request: pytest.FixtureRequest) -> Any:
    if request.param == "small":
        return make_registry()
    return Registry(plugins=[source(pytest.importorskip("eulerstack_mixers.plugin"), "eulerstack-mixers")])


def mappings(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every subschema that describes a mapping by its words."""
    if isinstance(schema, Mapping):
        if "properties" in schema and "type" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from mappings(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from mappings(value, f"{path}[{index}]")


def test_it_is_a_json_schema_and_json(registry: Any) -> None:
    schema = assemble(registry)
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_every_mapping_is_closed_or_leaves_it_to_its_types(registry: Any) -> None:
    for path, schema in mappings(assemble(registry)):
        closed = schema.get("additionalProperties") is False or schema.get("unevaluatedProperties") is False
        # Without a type to choose from there is nothing that could say which words there are.
        by_type = schema.get("additionalProperties") is True and (schema.get("allOf") or "type" in schema["properties"])
        assert closed or by_type, path


def test_every_word_of_the_core_is_described_and_every_default_is_legal(registry: Any) -> None:
    validator = _validator_class()
    schema = assemble(registry)
    for path, mapping in mappings(schema):
        for name, word in mapping["properties"].items():
            if isinstance(word, Mapping) and "default" in word:
                assert validator(word).is_valid(word["default"]), f"{path}.{name}"
    for section in ("model", "embedding", "tokenizer_contract", "training_hints", "compatibility"):
        for name, word in schema["properties"][section]["properties"].items():
            assert word.get("description") or name.startswith("vendor."), f"{section}.{name}"


def test_it_is_made_once_for_each_registry(registry: Any) -> None:
    assert assemble(registry) is assemble(registry)
    assert assemble(registry) is not assemble(make_registry())


def test_the_order_of_plugins_has_no_effect() -> None:
    plugins = [source(Own(), "eulerstack-mixers"), source(Acme(), "acme")]
    assert assemble(Registry(plugins=plugins)) == assemble(Registry(plugins=plugins[::-1]))


def test_the_core_alone_has_a_schema_too() -> None:
    Draft202012Validator.check_schema(assemble(Registry()))


def test_descriptions_come_in_the_language_asked_for(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack import i18n

    monkeypatch.setattr(i18n, "translator", lambda domain="eulerstack": lambda text: f"<{text}>")
    before = i18n.language()
    english, korean = assemble(registry), assemble(registry, "ko")
    word = english["properties"]["model"]["properties"]["d_model"]["description"]
    assert korean["properties"]["model"]["properties"]["d_model"]["description"] == f"<{word}>"
    assert i18n.language() == before
    assert assemble(registry) is english


def test_blocks_and_words_of_third_parties_are_in_it() -> None:
    rules = assemble(make_registry())["properties"]["layer_templates"]["additionalProperties"]["properties"]["mixer"][
        "allOf"
    ]
    words = {rule["if"]["properties"]["type"]["const"]: rule["then"]["properties"] for rule in rules}
    assert words["vendor.acme.gla"]["vendor.acme.gla"]["properties"]["rank"]["default"] == 8


def test_a_schema_in_another_language_leaves_the_users_choice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack import i18n
    from eulerstack.plugins.manager import get_registry

    i18n.activate(None)
    assemble(get_registry(), language="ja")
    monkeypatch.setenv("EULERSTACK_LANG", "es")
    assert i18n.language() == "es"
