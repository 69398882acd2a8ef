"""The functions that `import eulerstack` offers are those of the command, and cost nothing until used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import eulerstack as es
from tests.cli.conftest import PARAMS


def test_a_spec_goes_from_text_to_a_count(spec: Path) -> None:
    loaded = es.load(spec)
    es.validate_v2(loaded)
    ir = es.normalize_to_ir(loaded)
    assert es.count_parameters(ir) == PARAMS
    assert es.load("llm_0p1b_simple")["model"]["name"] == "llm-0p1b-simple"


def test_every_promised_name_is_there() -> None:
    for name in es.__all__:
        assert getattr(es, name) is not None
        assert name in dir(es)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        es.nothing_of_the_kind  # noqa: B018


def test_importing_it_imports_next_to_nothing() -> None:
    code = "import eulerstack, sys; sys.exit(any(m in sys.modules for m in ('yaml', 'jsonschema', 'pluggy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
