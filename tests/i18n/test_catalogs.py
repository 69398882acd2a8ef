"""The catalogs hold every sentence of our packages, in the right script, with the right placeholders."""

from __future__ import annotations

import ast
import gettext
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from eulerstack.i18n import LANGUAGES, LOCALE, activate

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("babel")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("catalogs", ROOT / "tools" / "catalogs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["catalogs"] = module
    spec.loader.exec_module(module)
    return module


catalogs = _load()


@pytest.fixture(scope="module")
def sentences() -> Iterator[dict[str, set[str]]]:
    yield catalogs.extract()
    activate(None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_missing_stale_or_in_the_wrong_script(language: str, sentences: dict[str, set[str]]) -> None:
    assert list(catalogs.problems(language, catalogs.read(language), sentences)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalog_is_that_of_the_text(language: str) -> None:
    assert catalogs.path(language, "mo").read_bytes() == catalogs.mo_bytes(catalogs.read(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_updating_an_up_to_date_catalog_changes_no_byte(language: str, sentences: dict[str, set[str]]) -> None:
    assert catalogs.po_text(catalogs.updated(language)) == catalogs.path(language).read_bytes()


def test_there_is_a_catalog_for_each_language_and_no_other() -> None:
    assert sorted(folder.name for folder in LOCALE.iterdir()) == sorted(LANGUAGES)


@pytest.mark.parametrize(
    ("language", "wrong", "problem"),
    [
        ("ko", "스펙 {file}", "other placeholders"),
        ("ko", "", "not translated"),
        ("ko", "検証 {name}", "wrong script"),
        ("zh", "検証する {name}", "wrong script"),
        ("ja", "Check {name}", "not in its script"),
        ("es", "Check {name}", "still English"),
        ("en", "Verify {name}", "differs from its key"),
    ],
)
def test_the_check_notices_what_it_is_for(language: str, wrong: str, problem: str) -> None:
    catalog = catalogs.Catalog(locale=language)
    catalog.add("Check {name}", wrong)
    found = list(catalogs.problems(language, catalog, {"Check {name}": set()}))
    assert any(problem in each for each in found)
    assert any("missing" in each for each in catalogs.problems(language, catalog, {"Another": set()}))
    assert any("stale" in each for each in catalogs.problems(language, catalog, {"Another": set()}))


def _calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """(place, call) of every call of these functions in our packages."""
    for source in catalogs.SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_the_extraction_finds_every_sentence(sentences: dict[str, set[str]]) -> None:
    """Babel reads tokens, so a call inside an f-string escapes it."""
    called = {place: call.args[0].value for place, call in _calls("msg", "_") if isinstance(call.args[0], ast.Constant)}
    assert {place: sentence for place, sentence in called.items() if sentence not in sentences} == {}


def test_sentences_are_written_out_where_they_are_used() -> None:
    hidden = [
        place
        for place, call in _calls("msg", "Message")
        if "/errors.py:" not in place and not (call.args and isinstance(call.args[0], ast.Constant))
    ]
    assert hidden == []


def test_every_placeholder_can_be_filled(sentences: dict[str, set[str]]) -> None:
    for language in LANGUAGES:
        with open(LOCALE / language / "LC_MESSAGES" / "eulerstack.mo", "rb") as file:
            catalog = gettext.GNUTranslations(file)
        for sentence in sentences:
            names = {name.strip("{}") for name in catalogs.PLACEHOLDER.findall(sentence)}
            if names and all(name.isidentifier() for name in names):
                catalog.gettext(sentence).format(**dict.fromkeys(names, "x"))
