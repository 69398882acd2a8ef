"""Every malformed spec is told what is wrong, where, and what to type; nothing is written or executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eulerstack.dsl.source import load_source
from eulerstack.plugins.manager import Registry
from tests.corpus import cases_compatibility, cases_expressions, cases_structure, cases_text
from tests.corpus.harness import BASE, Case, check, diagnostics_of, validate

CASES = [
    pytest.param(case, id=f"{module.__name__.removeprefix('cases_')}: {case.name}")
    for module in (cases_text, cases_expressions, cases_structure, cases_compatibility)
    for case in module.CASES
]


@pytest.fixture(scope="module")
def registry() -> Any:
    return Registry(plugins=[pytest.importorskip("eulerstack_mixers.plugin")])


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_located_and_its_fix_is_right(
    case: Case, tmp_path: Path, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(case, tmp_path, registry)


def test_the_corpus_holds_over_a_hundred_different_specs() -> None:
    assert len({case.values[0].content() for case in CASES}) == len(CASES) > 100


def test_the_base_spec_is_valid(tmp_path: Path, registry: Any) -> None:
    file = tmp_path / "spec.yml"
    file.write_text(BASE)
    validate(str(file), registry)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xef\xbb\xbf" + BASE.encode(), id="byte order mark"),
        pytest.param(BASE.replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(b"---\n" + BASE.encode() + b"...\n", id="explicit document"),
        pytest.param(b"%YAML 1.2\n---\n" + BASE.encode(), id="YAML directive"),
        pytest.param(BASE.rstrip("\n").encode(), id="no line end at the end"),
        pytest.param(BASE.replace("name: tiny", "name: 아주-작은-모델").encode(), id="other scripts"),
        pytest.param(BASE.replace("d_model: 64", "d_model: !!int '64'").encode(), id="a tag of YAML's own"),
        pytest.param(BASE.replace("d_model: 64", "d_model:\t64").encode(), id="a tab between key and value"),
    ],
)
def test_what_is_unusual_but_legal_is_accepted(text: bytes, tmp_path: Path, registry: Any) -> None:
    file = tmp_path / "spec.yml"
    file.write_bytes(text)
    validate(str(file), registry)


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "model.yml").write_text(BASE)
    file = str(tmp_path / "modle.yml")
    (found,) = diagnostics_of(lambda: load_source(file))
    assert (found.category, str(found.location)) == ("ValidationError", f"{file}:1:1")
    assert found.fix.render(str) == f"Type {tmp_path / 'model.yml'}"


def test_a_directory_is_no_spec_but_may_hold_one(tmp_path: Path) -> None:
    (tmp_path / "model.yml").write_text(BASE)
    (found,) = diagnostics_of(lambda: load_source(tmp_path))
    assert "this is a directory" in found.what.render(str)
    assert str(tmp_path / "model.yml") in found.fix.render(str)


def test_a_path_through_a_file_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "model.yml").write_text(BASE)
    (found,) = diagnostics_of(lambda: load_source(tmp_path / "model.yml" / "inner.yml"))
    assert "does not exist" in found.what.render(str)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.yml"
    file.write_text(BASE)
    file.chmod(0)
    (found,) = diagnostics_of(lambda: load_source(file))
    assert "can't be read" in found.what.render(str)


@pytest.mark.parametrize("file", ["\0", "x" * 5000, "/dev/zero", "/dev/null", ""])
def test_paths_that_are_no_files_are_refused(file: str) -> None:
    (found,) = diagnostics_of(lambda: load_source(file))
    assert found.category == "ValidationError"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + "{" * 100_000, id="braces"),
        pytest.param("- " * 250_000, id="dashes"),
        pytest.param("? " * 250_000, id="question marks"),
        pytest.param("a: &a " + "\n".join(f"x{i}: &a{i} *a" for i in range(9_000)), id="anchors"),
        pytest.param("\n".join(f"k{i}: 1" for i in range(6_500)), id="many unknown keys"),
        pytest.param("model:\n" + "\n".join(f"  k{i}: 1" for i in range(6_500)), id="many unknown words"),
        pytest.param("layer_schedule:\n" + "  - {template: a, repet: 2}\n" * 3_900, id="many faulty entries"),
        pytest.param("let:\n" + "\n".join(f"  n{i}: ${{let.n{i + 1}}}" for i in range(6_500)), id="a chain of names"),
        pytest.param("let:\n" + "\n".join(f"  n{i}: ${{let.m{i}}}" for i in range(6_500)), id="many unknown names"),
        pytest.param(
            "let: {a: 1}\n" + "\n".join(f"k{i}: ${{{'(' * 49}let.a{')' * 49}}}" for i in range(4_000)), id="many sums"
        ),
        pytest.param(
            "a: &a {" + ", ".join(f"k{i}: 1" for i in range(4_000)) + "}\nb: {<<: [" + "*a, " * 4_000 + "*a]}",
            id="merges",
        ),
        pytest.param("a: '" + "x" * 500_000 + "'", id="a long text"),
        pytest.param("a: " + "x: " * 150_000, id="colons"),
        pytest.param("\n".join(f"{'  ' * i}k:" for i in range(1_000)), id="deep indentation"),
        pytest.param("a: " + "!" * 500_000, id="exclamation marks"),
        pytest.param("a: " + "&a " * 150_000, id="ampersands"),
    ],
)
def test_hostile_texts_end_quickly(text: str, tmp_path: Path, registry: Any) -> None:
    file = tmp_path / "spec.yml"
    file.write_text(text)
    assert diagnostics_of(lambda: validate(str(file), registry))
