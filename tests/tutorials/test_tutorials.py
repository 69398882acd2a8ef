"""Tutorials: what they show works and prints what they say; Korean and English tell the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.draw import figures
from tools.tutorials import BLOCK, PAGES, TutorialError, rerun

ENGLISH = sorted(path.relative_to(PAGES / "en") for path in (PAGES / "en").rglob("*.md"))
KOREAN = sorted(path.relative_to(PAGES / "ko") for path in (PAGES / "ko").rglob("*.md"))
HANGUL = re.compile(r"[가-힣]")
LANGUAGE_OPTION = re.compile(r" --lang \w+")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
# What is looked for in a translated output is translated too.
SEARCH = re.compile(r" \| grep .*")
COMMENT = re.compile(r"\s*# (?!exit).*")


def text_of(language: str, page: Path) -> str:
    return (PAGES / language / page).read_text(encoding="utf-8")


def shown(text: str) -> list[tuple[str, str]]:
    """(kind and words, code without comments) of every block; of a console its commands, of output nothing."""
    blocks = []
    for found in BLOCK.finditer(text):
        code = found["text"]
        if found["kind"] == "console":
            lines = (SEARCH.sub("", LANGUAGE_OPTION.sub("", line)) for line in code.splitlines())
            code = "".join(f"{line}\n" for line in lines if line.startswith("$ "))
        elif found["kind"] == "text":
            code = ""
        blocks.append((found["kind"] + found["words"], "\n".join(COMMENT.sub("", line) for line in code.splitlines())))
    return blocks


def prose(text: str) -> list[str]:
    """The paragraphs outside of blocks, equations and pictures."""
    parts = PICTURE.sub("", BLOCK.sub("", text)).split("\n\n")
    return [part.strip() for part in parts if len(part.strip()) > 40 and not part.startswith("    ")]


def test_there_are_sixteen_in_both_languages() -> None:
    assert ENGLISH == KOREAN
    assert len(ENGLISH) == 16


@pytest.mark.torch
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_what_it_shows_works_and_prints_what_it_says(page: Path, language: str) -> None:
    text = text_of(language, page)
    assert rerun(text) == text


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_both_languages_show_the_same(page: Path) -> None:
    english, korean = text_of("en", page), text_of("ko", page)
    assert shown(korean) == shown(english)
    levels = [re.findall(r"^(#+) ", BLOCK.sub("", text), re.MULTILINE) for text in (english, korean)]
    assert levels[0] == levels[1]
    pictures = [picture.replace("figures/", "figures/ko/") for picture in PICTURE.findall(english)]
    assert pictures == PICTURE.findall(korean)


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_each_is_written_in_its_language(page: Path) -> None:
    assert [part for part in prose(text_of("en", page)) if HANGUL.search(part)] == []
    assert [part for part in prose(text_of("ko", page)) if not HANGUL.search(part)] == []


@pytest.mark.parametrize("page", ENGLISH, ids=str)
def test_no_spec_is_shown_that_is_not_run(page: Path) -> None:
    loose = [kind for kind, _ in shown(text_of("en", page)) if kind in ("yaml", "diff", "json", "bash")]
    assert loose == []


def test_figures_are_what_their_scripts_draw() -> None:
    made = figures()
    assert {path: path.read_text(encoding="utf-8") for path in made} == made
    pages = [(PAGES / language / page, text_of(language, page)) for language in ("en", "ko") for page in ENGLISH]
    assert {(page.parent / each).resolve() for page, text in pages for each in PICTURE.findall(text)} == set(made)


def test_a_page_that_shows_what_is_not_printed_is_rewritten() -> None:
    assert rerun("```console\n$ echo a\nb\n```\n") == "```console\n$ echo a\na\n```\n"
    assert rerun("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n").endswith("```text\n2\n```\n")


@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ false\n```\n",
        "```console\n$ printf 'a\\nb\\n'\n...\nc\n```\n",
        "```python\nraise ValueError\n```\n",
        '```yaml title="a.yml"\nx: 1\n```\n\n```diff title="a.yml → b.yml"\n-y: 1\n+y: 2\n```\n',
    ],
)
def test_a_page_that_does_not_work_is_refused(page: str) -> None:
    with pytest.raises(TutorialError):
        rerun(page)
