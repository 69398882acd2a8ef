"""The documentation: generated pages are current, every hook and word is there, links and anchors lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eulerstack.dsl.source import parse_text
from eulerstack.plugins import hookspecs
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.sources import installed_sources
from eulerstack.schema import validate_v2
from eulerstack.schema.assemble import assemble
from eulerstack.testing import CLAIMS, PACKAGE_CLAIMS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = [*sorted(ROOT.glob("eulerstack-*/**/src/**/*.py")), *sorted(ROOT.glob("presets/**/*.py"))]
SEE = re.compile(r"(?:[\w-]+/)*[\w-]+\.md#[\w.-]+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    anchors = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            text = line.lstrip("#").strip().lower()
            anchors.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return anchors


def see_references() -> Iterator[tuple[str, str]]:
    """(source file, reference) of every string in the sources that names a page and an anchor."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SEE.fullmatch(node.value):
                yield str(path.relative_to(ROOT)), node.value


def words_of(schema: Any) -> Iterator[str]:
    """Every property name in a JSON Schema."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "properties":
                yield from value
            yield from words_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from words_of(value)


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("hook", [name for name in vars(hookspecs) if name.startswith("eulerstack_")])
def test_every_hook_has_its_section(hook: str) -> None:
    assert hook in anchors_of(DOCS / "reference" / "hooks.md")


def test_every_word_of_the_language_is_on_its_page() -> None:
    page = (DOCS / "reference" / "language.md").read_text(encoding="utf-8")
    ours = Registry(source for source in installed_sources() if source.own)
    words = set(words_of(assemble(ours)))
    shown = {dotted.rpartition(".")[2] for dotted in re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)}
    assert words and words - shown == set()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


TOY = ROOT / "tests" / "toy_plugin"
TOY_FILES = [
    TOY / "pyproject.toml",
    TOY / "test_conformance.py",
    TOY / "src" / "eulerstack_toy" / "presets" / "toy.yml",
]
TOY_FILES += [path for path in sorted((TOY / "src").rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", TOY_FILES, ids=lambda path: str(path.relative_to(TOY)))
def test_the_plugin_page_shows_the_whole_package(path: Path) -> None:
    page = (DOCS / "writing-a-plugin.md").read_text(encoding="utf-8")
    marker = f"<!-- file: {path.relative_to(ROOT).as_posix()} -->\n"
    assert page.count(marker) == 1
    assert path.read_text(encoding="utf-8").strip() in page.partition(marker)[2]


EXAMPLE = ROOT / "examples" / "gated_conv"


@pytest.mark.parametrize(
    "file", ["pyproject.toml", *(f"src/eulerstack_acme/{name}.py" for name in ("plugin", "modules", "reference")),
             "tests/test_conformance.py"]
)  # fmt: skip
def test_the_mixer_page_shows_the_whole_package(file: str) -> None:
    page = (DOCS / "write-a-mixer.md").read_text(encoding="utf-8")
    marker = f"<!-- file: examples/gated_conv/{file} -->\n"
    assert page.count(marker) == 1
    assert (EXAMPLE / file).read_text(encoding="utf-8").strip() in page.partition(marker)[2]


def test_the_mixer_page_lists_every_claim() -> None:
    page = (DOCS / "write-a-mixer.md").read_text(encoding="utf-8")
    rows = [
        f"| {claim.name} | {claim.sentence} | {', '.join(claim.rests_on)} |"
        for claim in (CLAIMS | PACKAGE_CLAIMS).values()
    ]
    assert [row for row in rows if row not in page] == []


def shown_specs() -> Iterator[tuple[str, str]]:
    """(page, text) of every complete spec that a page shows."""
    for page in sorted(DOCS.rglob("*.md")):
        for block in re.findall(r"^```yaml\n(schema_version.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            if "layer_schedule" in block:
                yield str(page.relative_to(DOCS)), block


@pytest.mark.parametrize(("page", "text"), list(shown_specs()))
def test_specs_that_pages_show_are_valid(page: str, text: str) -> None:
    spec = parse_text(text, page)
    if "vendor." not in text:
        validate_v2(spec)


def test_what_errors_point_at_exists() -> None:
    broken = {
        (source, see)
        for source, see in see_references()
        if not (DOCS / see.partition("#")[0]).exists()
        or see.partition("#")[2] not in anchors_of(DOCS / see.partition("#")[0])
    }
    assert broken == set()
