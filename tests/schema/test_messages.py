"""Messages: templates that catalogs can hold, and pages that exist."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import eulerstack

SOURCE = Path(eulerstack.__file__).parent
FILES = [
    *sorted((SOURCE / "dsl").glob("*.py")),
    *sorted((SOURCE / "schema").glob("*.py")),
    SOURCE / "core_plugin.py",
]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def calls(file: Path) -> Iterator[ast.Call]:
    """Every call of `msg` in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "msg":
            yield node


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_templates_are_literals_whose_fields_are_given(file: Path) -> None:
    for call in calls(file):
        (template,) = call.args
        assert isinstance(template, ast.Constant) and isinstance(template.value, str), f"{file.name}:{call.lineno}"
        given = {keyword.arg for keyword in call.keywords}
        wanted = {name for _, name, _, _ in string.Formatter().parse(template.value) if name is not None}
        assert given == wanted, f"{file.name}:{call.lineno}: {template.value}"
        assert given or "{" not in template.value, "a template without fields is not formatted"


def test_every_page_that_errors_name_explains_them() -> None:
    named = {
        anchor
        for file in FILES
        for anchor in re.findall(r'"reference/errors\.md#([a-z-]+)"', file.read_text(encoding="utf-8"))
    }
    headings = re.findall(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert len(named) > 30
    assert named - anchors == set()
