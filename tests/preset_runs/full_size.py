"""Run by name, `pytest tests/preset_runs/full_size.py`: what one machine can hold of the presets, at full size.

Up to 400M parameters: compiled as they are, loaded where eulerstack can't be imported, trained two steps, decoded with
and without a cache, saved and loaded again. Takes 8 GB of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import eulerstack as es
from eulerstack.presets import presets
from tests.preset_runs.serving import Serve, serving

MOST_PARAMETERS = 400_000_000
SMALL = [
    preset.name
    for preset in presets()
    if preset.path.parent.name == "eulerstack_presets"
    and es.count_parameters(es.normalize_to_ir(es.load(preset.name))) < MOST_PARAMETERS
]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """One process for all presets."""
    with serving() as ask:
        yield ask


@pytest.mark.parametrize("name", SMALL)
def test_it_does_at_full_size_what_it_does_reduced(name: str, serve: Serve, tmp_path: Path) -> None:
    ir = es.normalize_to_ir(es.load(name, ["model.dtype=float32"]))
    es.compile_to_directory(ir, tmp_path / name, seed=1)
    result = serve(tmp_path / name, tmp_path / "again", 2)
    assert "error" not in result, result["error"]
    assert result["parameters"] == es.count_parameters(ir) and result["layers"] == len(ir.layers)
    assert result["finite"] and result["cached"] < 1e-3 and result["reloaded"] < 1e-4
    assert result["generated"][0] == result["generated"][1]
