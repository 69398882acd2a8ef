"""The active language: how it is chosen, and what it does to messages, ours and plugins'."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from eulerstack import i18n
from eulerstack.errors import Diagnostic, Message, msg
from eulerstack.plugins import Catalog, hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import PluginSource, reset_registry

WHAT = msg("there is no such option")


@pytest.fixture(autouse=True)
def unchanged_language(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("EULERSTACK_LANG", raising=False)
    yield
    i18n.activate(None)


def test_korean_is_the_default_and_the_environment_and_activate_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert i18n.language() == "ko"
    monkeypatch.setenv("EULERSTACK_LANG", "ja")
    assert i18n.language() == "ja"
    i18n.activate("es")
    assert i18n.language() == "es"
    i18n.activate(None)
    assert i18n.language() == "ja"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="fr"):
        i18n.activate("fr")


@pytest.mark.parametrize(
    ("tag", "language"),
    [("EN", "en"), ("zh-CN", "zh"), ("ja_JP.UTF-8", "ja"), (" ko ", "ko"), ("fr", None), ("", None)],
)
def test_tags_of_languages_are_understood(tag: str, language: str | None) -> None:
    assert i18n.parse_language(tag) == language


def test_a_message_follows_the_active_language() -> None:
    said = {}
    for language in i18n.LANGUAGES:
        i18n.activate(language)
        said[language] = WHAT.render()
    assert said["en"] == "there is no such option" and len(set(said.values())) == len(i18n.LANGUAGES)


def test_category_fix_and_see_stay_as_they_are() -> None:
    diagnostic = Diagnostic(
        "CompileError", WHAT, msg("use {option}", option="--report"), "reference/cli.md#x", "--reprt"
    )
    for language in i18n.LANGUAGES:
        i18n.activate(language)
        head, fix, see = diagnostic.lines()
        assert head.startswith("CompileError: --reprt: ")
        assert fix.startswith("Fix: ") and "--report" in fix and see == "See: reference/cli.md#x"


def test_values_that_are_messages_are_translated_with_the_sentence() -> None:
    i18n.activate("es")
    assert msg("use {option}", option=WHAT).render() == "use no existe esa opción"


def test_a_sentence_without_a_translation_stays_english() -> None:
    assert Message("never heard of").render() == "never heard of"
    assert Message("never heard of", domain="nobodys").render() == "never heard of"


def test_a_plugins_own_catalog_is_used_for_its_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    babel_catalog = pytest.importorskip("babel.messages.catalog")
    from babel.messages.mofile import write_mo

    catalog = babel_catalog.Catalog(locale="ko")
    catalog.add("too wide", "너무 넓습니다")
    folder = tmp_path / "ko" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with open(folder / "acme.mo", "wb") as file:
        write_mo(file, catalog)
    module = types.ModuleType("acme")
    module.eulerstack_messages = hookimpl(lambda: [Catalog("acme", str(tmp_path))])  # type: ignore[attr-defined]
    monkeypatch.setattr(
        manager_module, "installed_sources", lambda: [PluginSource("acme", "acme", "1", lambda: module)]
    )
    reset_registry()
    i18n._catalog.cache_clear()
    try:
        assert Message("too wide", domain="acme").render() == "너무 넓습니다"
        assert Message("too wide").render() == "too wide"
    finally:
        reset_registry()
        i18n._catalog.cache_clear()
