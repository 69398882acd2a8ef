"""Reading specs: YAML 1.2 scalars, places of every part, anchors and merges, specs made in Python."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eulerstack.dsl.paths import dotted
from eulerstack.dsl.source import Spec, as_spec, load_source, parse_text
from eulerstack.errors import Location, ValidationError

TEXT = """\
schema_version: 1
model:
  name: tiny   # a comment
  d_model: 64
  sizes: [1, 2]
layer_schedule:
  - template: a
    repeat: 3
  - {template: b, override: {attention: {window: null}}}
empty:
"""


def value(text: str) -> Any:
    """What a plain scalar means."""
    return parse_text(f"a: {text}\n", "m.yml")["a"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1", 1), ("-3", -3), ("+4", 4), ("010", 10), ("0o17", 15), ("0x1F", 31),
        ("1.5", 1.5), ("1e-5", 1e-5), ("1E3", 1000.0), (".5", 0.5), ("-1.e2", -100.0), ("2.", 2.0),
        ("true", True), ("True", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("on", "on"), ("No", "No"), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("'1'", "1"), ('"true"', "true"), ("1e", "1e"),
        ("!!str 12", "12"), ("!!float 1", 1.0), ("! 12", "12"), ("|\n  x\n", "x\n"), ("=", "="), ("<", "<"),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, meaning: Any) -> None:
    got = value(text)
    assert got == meaning and type(got) is type(meaning)


def test_every_part_knows_its_place() -> None:
    spec = parse_text(TEXT, "m.yml")
    places = {
        "schema_version": (1, 17),
        "model": (2, 1),
        "model.name": (3, 9),
        "model.sizes": (5, 3),
        "model.sizes[1]": (5, 14),
        "layer_schedule": (6, 1),
        "layer_schedule[0]": (7, 5),
        "layer_schedule[0].repeat": (8, 13),
        "layer_schedule[1].override.attention.window": (9, 50),
        "empty": (10, 1),
        "": (1, 1),
    }
    assert {path: spec.locate(path) for path in places} == {
        path: Location("m.yml", *place) for path, place in places.items()
    }
    assert spec.locate_key(("model", "name")) == Location("m.yml", 3, 3)
    assert spec.positions[("layer_schedule", 0, "repeat")] == Location("m.yml", 8, 13)
    assert spec.key_positions[("layer_schedule", 0, "repeat")] == Location("m.yml", 8, 5)


def test_what_is_not_there_is_placed_at_its_nearest_ancestor() -> None:
    spec = parse_text(TEXT, "m.yml")
    assert spec.locate("model.n_heads.x[3]") == spec.locate("model")
    assert spec.locate("layer_schedule[0].override") == spec.locate("layer_schedule[0]")
    assert spec.locate("nothing") == Location("m.yml", 1, 1)


def test_dotted_keys_are_found_by_their_whole_path() -> None:
    spec = parse_text("model:\n  vendor.acme.x:\n    y: 1\n", "m.yml")
    assert spec.locate("model.vendor.acme.x.y") == Location("m.yml", 3, 8)


def test_columns_count_characters() -> None:
    assert parse_text("이름: 모델\n", "m.yml").locate("이름") == Location("m.yml", 1, 5)


def test_aliases_and_merges_are_expanded_and_keep_the_place_to_edit() -> None:
    spec = parse_text("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: *b\ne: {<<: [{x: 9}, *b]}\n", "m.yml")
    assert spec["c"] == {"y": 3, "x": 1}
    assert spec["d"] == {"x": 1, "y": 2}
    assert spec["e"] == {"x": 9, "y": 2}
    assert spec.locate("c.x") == Location("m.yml", 1, 14)
    assert spec.locate("d") == Location("m.yml", 3, 1)
    spec["d"]["x"] = 7
    assert spec["base"]["x"] == 1, "expanded aliases share no data"


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert parse_text('a: {"<<": 1}\n', "m.yml")["a"] == {"<<": 1}


def test_a_spec_is_a_plain_mapping_that_copies_and_pickles() -> None:
    spec = parse_text(TEXT, "m.yml")
    assert isinstance(spec, dict) and spec == dict(spec)
    for twin in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert twin == spec and twin.locate("model.name") == spec.locate("model.name")


def test_raw_data_keeps_expressions() -> None:
    spec = parse_text("let: {a: 2}\nb: ${let.a * 3}\n", "m.yml")
    assert spec["b"] == 6
    assert spec.raw["b"] == "${let.a * 3}"
    assert spec.text.startswith("let:")


def test_a_spec_made_in_python_has_no_places_but_expressions() -> None:
    spec = as_spec({"let": {"a": 2}, "model": {"d_model": "${let.a * 32}"}, "sizes": (1, 2)})
    assert spec["model"]["d_model"] == 64
    assert spec["sizes"] == [1, 2]
    assert spec.locate("model.d_model") is None
    assert as_spec(spec) is spec


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({"a": object()}, "type object"),
        ({"a": {1: 2}}, "a key must be text"),
        ({"a": [float("inf")]}, "not a finite number"),
        ({"a": float("nan")}, "not a finite number"),
        ({"a": b"x"}, "type bytes"),
        ({"a": {1, 2}}, "type set"),
        ([1], "must be a mapping"),
    ],
)
def test_python_values_that_no_text_could_hold_are_refused(data: Any, what: str) -> None:
    with pytest.raises(ValidationError) as error:
        as_spec(data)
    assert what in error.value.diagnostics[0].what.render(str)


def test_python_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["a"] = [data]
    with pytest.raises(ValidationError):
        as_spec(data)


def test_the_file_is_called_what_the_user_called_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yml").write_text(TEXT)
    location = load_source("./m.yml").locate("model")
    assert str(location) == "./m.yml:2:1"
    assert load_source(Path("m.yml")).file == "m.yml"


def test_the_pure_python_parser_reads_the_same() -> None:
    """PyYAML may have been built without libyaml."""
    program = (
        "import sys; sys.modules['yaml._yaml'] = None\n"
        "from eulerstack.dsl import compose\n"
        "assert compose._Parser.__module__ == compose.__name__\n"
        "from eulerstack.dsl.source import parse_text\n"
        "spec = parse_text(sys.stdin.read(), 'm.yml')\n"
        "print(dict(spec) == {!r}, spec.locate('layer_schedule[1].override.attention.window'))\n"
    )
    spec = parse_text(TEXT, "m.yml")
    done = subprocess.run(
        [sys.executable, "-c", program.replace("{!r}", repr(dict(spec)))],
        input=TEXT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "True m.yml:9:50", done.stderr


def test_reading_a_spec_imports_neither_torch_nor_jsonschema() -> None:
    program = (
        "import sys; from eulerstack.dsl.source import parse_text; parse_text('a: 1', 'm')\n"
        "print([m for m in ('torch', 'transformers', 'jsonschema', 'fractions', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_spec_without_text_has_itself_as_raw_data() -> None:
    assert Spec({"a": 1}).raw == {"a": 1}


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yml")
    with pytest.raises(ValidationError):
        load_source(str(tmp_path / "pipe.yml"))


@pytest.mark.parametrize("name", ["x" * 150, ".a", "a b", "a.b", 'quote"d', "줄"])
def test_a_place_is_found_under_any_name_however_messages_write_it(name: str) -> None:
    spec = parse_text(f"templates:\n  {json.dumps(name)}:\n    size: 3\n", "m.yml")
    for path in (f"templates.{name}.size", dotted(("templates", name, "size"))):
        assert spec.locate(path) == Location("m.yml", 3, 11)


@pytest.mark.parametrize("character", ["\0", "\ud800", "\udfff"])
def test_texts_and_keys_that_no_file_could_hold_are_refused(character: str) -> None:
    bad = f"a{character}"
    with pytest.raises(ValidationError) as caught:
        as_spec({"name": bad, "list": [{"b": bad}], bad: 1})
    places = ["name", "list[0].b", dotted((bad,))]
    assert [each.path for each in caught.value.diagnostics] == places
    for each in caught.value.diagnostics:
        assert f"U+{ord(character):04X}" in each.what.render(str)
        assert all(line.isprintable() for line in each.lines())


def test_an_escaped_zero_is_refused_at_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        parse_text('a: 1\nb: "x\\0"\n"k\\0": 1\n', "m.yml")
    assert [str(each.location) for each in caught.value.diagnostics] == ["m.yml:2:4", "m.yml:3:8"]
