"""The example of docs/write-a-mixer.md passes its own tests, and is as short as the page says."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eulerstack.dsl.source import parse_text
from eulerstack.ir import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report
from eulerstack.testing import Example, conformance
from tests.testing.conftest import EXAMPLE

torch.set_num_threads(1)
SOURCE = EXAMPLE / "src" / "eulerstack_acme"


@pytest.fixture(scope="module", autouse=True)
def installed(install: Callable[[Path], None]) -> None:
    install(EXAMPLE)


test_conformance = conformance("eulerstack-acme", Example("mixer", "vendor.acme.gated_conv", {"kernel": 3}))


def lines_of(file: Path) -> int:
    """The lines of a file, blank ones included, without its docstring."""
    text = file.read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0]
    return len(text.strip().splitlines()[docstring.end_lineno :])


def test_declaration_and_module_together_have_at_most_sixty_lines() -> None:
    assert lines_of(SOURCE / "plugin.py") + lines_of(SOURCE / "modules.py") <= 60


def test_its_own_test_file_asks_the_same() -> None:
    text = (EXAMPLE / "tests" / "test_conformance.py").read_text(encoding="utf-8")
    assert 'conformance("eulerstack-acme", Example("mixer", "vendor.acme.gated_conv", {"kernel": 3}))' in text


def test_the_spec_on_its_page_is_a_model_without_findings() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "write-a-mixer.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    ir = normalize_to_ir(parse_text(text, "my_model.yml"))
    conv = [layer for layer in ir.layers if layer.mixer.type == "vendor.acme.gated_conv"]
    assert len(conv) == 3 and report(ir, get_registry()) == []
