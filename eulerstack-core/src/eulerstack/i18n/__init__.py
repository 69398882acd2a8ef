"""Languages: gettext catalogs, with the English sentences as their keys.

The active language is the one given to `activate`, else EULERSTACK_LANG, else Korean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

LANGUAGES = ("ko", "en", "zh", "ja", "es")
DEFAULT = "ko"
VARIABLE = "EULERSTACK_LANG"
DOMAIN = "eulerstack"
LOCALE = Path(__file__).parent / "locale"

_active: str | None = None
_finders: list[Callable[[str], Iterable[str]]] = []
_listers: list[Callable[[], Iterable[str]]] = []


def activate(language: str | None) -> None:
    """Makes `language` the active one; None goes back to the environment's. Raises ValueError for an unknown one."""
    global _active
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}; known: {', '.join(LANGUAGES)}")
    _active = language


@contextmanager
def using(language: str) -> Iterator[None]:
    """Makes `language` the active one for a block; afterwards the choice is what it was, none included."""
    global _active
    before = _active
    activate(language)
    try:
        yield
    finally:
        _active = before


def language() -> str:
    """The active language."""
    if _active is not None:
        return _active
    return parse_language(os.environ.get(VARIABLE, "")) or DEFAULT


def translator(domain: str = DOMAIN) -> Callable[[str], str]:
    """The function that turns an English sentence of `domain` into the active language's.

    Other domains than the core's are those of plugins, found through the hook `eulerstack_messages`; a sentence
    without a translation stays English.
    """
    return _catalog(domain, language()).gettext


@lru_cache(maxsize=32)
def _catalog(domain: str, code: str) -> NullTranslations:
    for folder in _folders(domain):
        try:
            with open(folder / code / "LC_MESSAGES" / f"{domain}.mo", "rb") as file:
                return GNUTranslations(file)
        except (OSError, ValueError):
            # A plugin's missing or damaged catalog costs its translation, never the message.
            continue
    return NullTranslations()


def _folders(domain: str) -> list[Path]:
    return [LOCALE] if domain == DOMAIN else [Path(folder) for find in _finders for folder in find(domain)]


def add_folders(find: Callable[[str], Iterable[str]], domains: Callable[[], Iterable[str]]) -> None:
    """Makes `find` one of the functions that say in which folders the catalogs of another domain lie.

    `domains` lists the domains that it knows. The plugins' registry is one; it says so itself, because this package
    knows nothing that stands above it.
    """
    _finders.append(find)
    _listers.append(domains)


def declared(text: str) -> str:
    """What a declaration says of itself (a summary, a description) in the active language, by the catalog that has it:
    the core's or a plugin's; English where none has."""
    translated = gettext(text)
    if translated == text and language() != "en":
        others = (translator(domain)(text) for lister in _listers for domain in lister())
        return next((each for each in others if each != text), text)
    return translated


def gettext(text: str) -> str:
    """A core sentence in the active language; imported as `_` where catalogs are to pick the sentence up."""
    return translator()(text)


def parse_language(text: str) -> str | None:
    """The language meant by a tag such as "ko", "EN", "zh-CN" or "ja_JP.UTF-8"; None when there is none."""
    code = text.strip().lower().replace("_", "-").split(".")[0].split("-")[0]
    return code if code in LANGUAGES else None
