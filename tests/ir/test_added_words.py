"""Words that plugins add to sections: kept with their defaults, printed, read again, whatever the section."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerstack.compiler.compile import compile_ir
from eulerstack.dsl.source import parse_text
from eulerstack.errors import ValidationError
from eulerstack.ir import from_data, normalize_to_ir, print_ir, to_data
from eulerstack.plugins import Namespace, SchemaFragment, hookimpl
from eulerstack.plugins.contributions import FRAGMENT_PLACES
from eulerstack.plugins.manager import PluginSource, Registry
from eulerstack.plugins.sources import installed_sources
from eulerstack.schema.assemble import assemble
from eulerstack.schema.realism import findings
from tests.ir.strategies import minimal

WORDS: dict[str, Any] = {
    "vendor.acme.rate": {"type": "number", "minimum": 0, "default": 1},
    "vendor.acme.note": {"type": ["string", "null"], "default": None},
    "vendor.acme.plan": {
        "type": "object",
        "default": {},
        "properties": {
            "steps": {"type": "integer", "minimum": 1, "default": 10},
            "names": {"type": "array", "items": {"type": "string"}, "default": []},
        },
    },
    "vendor.acme.silent": {"type": "integer"},
}
# Texts that a file can hold.
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
VALUES = {
    "vendor.acme.rate": st.integers(0, 9) | st.floats(0, 9, allow_nan=False),
    "vendor.acme.note": st.none() | st.text(letters, max_size=5),
    "vendor.acme.plan": st.fixed_dictionaries(
        {}, optional={"steps": st.integers(1, 9), "names": st.lists(st.text(letters, max_size=3), max_size=2)}
    ),
    "vendor.acme.silent": st.integers(),
}


class Acme:
    @hookimpl
    def eulerstack_schema_fragments(self) -> list[SchemaFragment]:
        return [SchemaFragment(place, WORDS) for place in FRAGMENT_PLACES]

    @hookimpl
    def eulerstack_namespaces(self) -> list[Namespace]:
        schema = {"type": "object", "properties": {"every": {"type": "integer", "default": 5}}}
        return [Namespace("vendor.acme.telemetry", schema, "x")]


REGISTRY = Registry([*installed_sources(), PluginSource("acme", "acme", "1", Acme)])


def written(words: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A spec with these words in these sections."""
    sections = {place: words[place] for place in words if place}
    spec = minimal(**{place: given for place, given in sections.items() if place in ("model", "embedding")})
    for place in set(sections) - {"model", "embedding"}:
        spec[place] = {**spec.get(place, {}), **sections[place]}
    return {**spec, **words.get("", {})}


def path_of(place: str, word: str) -> str:
    return f"{place}.{word}" if place else word


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={place: st.fixed_dictionaries({}, optional=VALUES) for place in FRAGMENT_PLACES})
)
def test_added_words_survive_printing_and_reading_in_every_section(words: dict[str, dict[str, Any]]) -> None:
    ir = normalize_to_ir(written(words), REGISTRY)
    text = print_ir(ir, REGISTRY)
    again = normalize_to_ir(parse_text(text, "printed.yml"), REGISTRY)
    assert again == ir and print_ir(again, REGISTRY) == text
    assert from_data(to_data(ir)) == ir
    extensions = compile_ir(ir)["v1_extensions"]
    for place in FRAGMENT_PLACES:
        given = words.get(place, {})
        for word, schema in WORDS.items():
            path = path_of(place, word)
            if word in given or "default" in schema:
                value = given.get(word, schema.get("default"))
                complete = {"steps": 10, "names": [], **value} if word.endswith("plan") else value
                assert extensions[path] == complete
            else:
                assert path not in extensions
        section = ir.head.params if place == "head" else getattr(ir, place, {})
        assert not any(word in section for word in WORDS)


@pytest.mark.parametrize("place", FRAGMENT_PLACES)
def test_a_value_against_its_schema_is_refused_where_it_stands(place: str) -> None:
    path = path_of(place, "vendor.acme.rate")
    spec = parse_text(print_ir(normalize_to_ir(written({place: {"vendor.acme.rate": 7}}), REGISTRY), REGISTRY), "a.yml")
    before = spec.locate(path)
    target = spec[place] if place else spec
    target["vendor.acme.rate"] = -1
    with pytest.raises(ValidationError) as caught:
        normalize_to_ir(spec, REGISTRY)
    (problem,) = caught.value.diagnostics
    assert problem.path == path and problem.location == before and before.line > 1


@pytest.mark.parametrize("place", FRAGMENT_PLACES)
def test_added_words_are_in_the_assembled_schema(place: str) -> None:
    schema = assemble(REGISTRY)
    section = schema["properties"][place] if place else schema
    assert set(WORDS) <= set(section["properties"])


def test_a_word_at_a_place_where_nobody_reads_it_is_found() -> None:
    ir = normalize_to_ir({**minimal(), "layer_templates": {"decoder": {
        **minimal()["layer_templates"]["decoder"], "vendor.acme.rate": 3}}}, REGISTRY)  # fmt: skip
    found = [finding.path for finding in findings(ir, REGISTRY) if finding.rule == "reserved_namespace"]
    assert found == ["layer_templates.decoder.vendor.acme.rate"]


@pytest.mark.parametrize(
    ("key", "handled"), [("vendor.acme.telemetry", True), ("experimental.vendor.acme.telemetry", False)]
)
def test_a_handled_value_is_completed_and_no_other_key_is_taken_for_it(key: str, handled: bool) -> None:
    ir = normalize_to_ir({**minimal(), key: {}}, REGISTRY)
    assert ir.extensions[key] == ({"every": 5} if handled else {})
    found = [finding.path for finding in findings(ir, REGISTRY) if finding.rule == "reserved_namespace"]
    assert found == ([] if handled else [key])
