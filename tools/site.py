"""What the docs' site does beyond MkDocs: results of benchmarks become pages, links to sources become plain text.

MkDocs knows this file as a hook (mkdocs.yml); `make site` builds.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]*)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the results of benchmarks, which are kept beside their scripts."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / RESULTS).glob("*.md")):
        files.append(File.generated(config, f"{RESULTS}/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links that lead out of docs/ to the page that stands for their target, or to nothing."""
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


def _to(page: Any, target: str) -> str:
    return relpath(target, normpath(f"{page.file.src_uri}/.."))


def _hash(anchor: str) -> str:
    return f"#{anchor}" if anchor else ""
