"""The site of the docs: what its hook makes of pages, and that every page has its place in the menu."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.site import on_page_content, on_page_markdown, on_post_page

ROOT = Path(__file__).resolve().parents[2]


def page_at(path: str) -> Any:
    return SimpleNamespace(file=SimpleNamespace(src_uri=path), meta={})


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("tutorials/en/01_a.md", "[한국어로 읽기](../ko/01_a.md)"),
        ("tutorials/ko/mixers/00_b.md", "[Read in English](../../en/mixers/00_b.md)"),
    ],
)
def test_a_tutorial_begins_with_a_link_to_its_other_language(path: str, link: str) -> None:
    made = on_page_markdown("# Title\n\nText.\n", page_at(path), None, None)
    assert made == f"# Title\n\n{link}\n\nText.\n"


def test_links_out_of_the_docs_become_text_and_results_become_pages() -> None:
    text = "[code](../README.md) [here](hooks.md) [times](../benchmarks/results/moe.md#a)"
    made = on_page_markdown(text, page_at("benchmarks.md"), None, None)
    assert made == "code [here](hooks.md) [times](benchmarks/results/moe.md#a)"


def test_korean_letters_take_two_columns_in_blocks_and_stay_as_they_are_in_prose() -> None:
    made = on_page_content("<p>토큰</p><pre><code>토큰 A</code></pre>", None, None, None)
    assert made == '<p>토큰</p><pre><code><span class="wide" style="width:4ch">토큰</span> A</code></pre>'


def test_of_a_console_what_is_typed_is_copied() -> None:
    code = "<code><span>$ </span>a &lt;b\nprinted\n$ c \\\n  --d # exit 3\n</code>"
    made = on_page_content(f'<div class="language-console highlight"><pre>{code}</pre></div>', None, None, None)
    assert made.startswith('<div class="language-console highlight" data-copy="a &lt;b\nc \\\n  --d"><pre>')


def test_a_korean_page_says_that_it_is_korean() -> None:
    html = '<html lang="en" class="no-js">'
    assert on_post_page(html, page_at("tutorials/ko/01_a.md"), None) == '<html lang="ko" class="no-js">'
    assert on_post_page(html, page_at("benchmarks.md"), None) == html


def test_every_page_is_in_the_menu_once() -> None:
    menu = re.findall(
        r"\S+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2], re.MULTILINE
    )
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    inner = {page for page in pages if re.fullmatch(r"decisions/(\d.*|packaging)\.md", page)}
    assert sorted(menu) == sorted(pages - inner)
