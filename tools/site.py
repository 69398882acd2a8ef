"""What the docs' site does beyond MkDocs.

Results of benchmarks become pages, links to sources become plain text, tutorials link to their other language, Korean
headings have names of their own, a Korean letter in what a terminal prints is as wide as two Latin ones, and the button
that copies such a block copies what is typed in it.

MkDocs knows this file as a hook (mkdocs.yml); `make site` builds.
"""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]*)\)")
ALONE = ("index.md", "first-hour.md")
OTHERS = {"en": ("ko", "한국어로 읽기"), "ko": ("en", "Read in English")}
CONSOLE = re.compile(r'<div class="language-console highlight">(?=(.*?</pre>))', re.DOTALL)
TYPED = re.compile(r"^\$ ((?:.*\\\n)*.*?)(?:\s+# exit \d+)?$", re.MULTILINE)
PRE = re.compile(r"<pre\b.*?</pre>", re.DOTALL)
WIDE = re.compile(r"[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]+")


def on_config(config: Any) -> Any:
    """Headings in any script become anchors; those of Latin letters are as they were."""
    from markdown.extensions.toc import slugify_unicode

    config.mdx_configs["toc"] = {**config.mdx_configs.get("toc", {}), "slugify": slugify_unicode}
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the results of benchmarks, which are kept beside their scripts."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / RESULTS).glob("*.md")):
        files.append(File.generated(config, f"{RESULTS}/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links that lead out of docs/ to the page that stands for their target, or to nothing.

    Pages without neighbours have their room; a tutorial begins with a link to its other language.
    """
    if page.file.src_uri in ALONE:
        page.meta["hide"] = ["navigation"]
    language = _language(page)
    if page.file.src_uri.startswith("tutorials/"):
        title, _, rest = markdown.partition("\n")
        other, words = OTHERS[language]
        target = _to(page, page.file.src_uri.replace(f"/{language}/", f"/{other}/", 1))
        markdown = f"{title}\n\n[{words}]({target})\n{rest}"
    here = f"docs/{page.file.src_uri}" if not page.file.src_uri.startswith(RESULTS) else page.file.src_uri

    def kept(found: re.Match[str]) -> str:
        path, _, anchor = found[2].partition("#")
        target = normpath(f"{here}/../{path}")
        if target.startswith("docs/"):
            return found[0] if here.startswith("docs/") else f"[{found[1]}]({_to(page, target[5:])}{_hash(anchor)})"
        if target.startswith(RESULTS) and target.endswith(".md"):
            return f"[{found[1]}]({_to(page, target)}{_hash(anchor)})"
        return found[1]

    return LINK.sub(kept, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Gives runs of wide letters in blocks of code the room of their columns, whatever font the reader has.

    Of a console's block the theme's button copies the commands, which stand in `data-copy`, and not what they print.
    """

    def wide(found: re.Match[str]) -> str:
        return f'<span class="wide" style="width:{2 * len(found[0])}ch">{found[0]}</span>'

    def typed(found: re.Match[str]) -> str:
        commands = "\n".join(TYPED.findall(unescape(re.sub(r"<[^>]*>", "", found[1]))))
        return f'{found[0][:-1]} data-copy="{escape(commands)}">'

    return CONSOLE.sub(typed, PRE.sub(lambda block: WIDE.sub(wide, block[0]), html))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Names the language of a page that is not in English."""
    return output.replace('<html lang="en"', f'<html lang="{_language(page)}"', 1)


def _language(page: Any) -> str:
    found = re.match(r"tutorials/(\w+)/", page.file.src_uri)
    return found[1] if found else "en"


def _to(page: Any, target: str) -> str:
    return relpath(target, normpath(f"{page.file.src_uri}/.."))


def _hash(anchor: str) -> str:
    return f"#{anchor}" if anchor else ""
