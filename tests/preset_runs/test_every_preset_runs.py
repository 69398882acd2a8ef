"""Every preset, made small by `--set` alone, does what a model must, loaded where eulerstack can't be imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eulerstack as es
from eulerstack.ir.types import ModelIR
from eulerstack.presets import presets
from tests.preset_runs.reduction import assignments
from tests.preset_runs.serving import Serve, serving

NAMES = [preset.name for preset in presets() if preset.path.parent.name == "eulerstack_presets"]
STEPS, MORE_STEPS = 20, 30
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """One process for all presets."""
    with serving() as ask:
        yield ask


def kinds(ir: ModelIR) -> set[tuple[Any, ...]]:
    """What layers a model has, sizes aside: every primitive of a layer, what stands around it, and its stage."""
    return {
        (
            stage.word,
            layer.template,
            layer.mixer.type,
            tuple(sorted(held.type for held in layer.mixer.held.values())),
            layer.ffn.type,
            layer.norm.type,
            layer.norm.position,
            layer.residual.type,
            layer.memory and layer.memory.type,
            layer.depth_gating is not None,
            layer.shape_change is not None,
        )
        for stage in ir.stages
        for layer in stage.layers
    }


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_decodes_and_is_saved_where_eulerstack_is_not(name: str, serve: Serve, tmp_path: Path) -> None:
    full, ir = es.normalize_to_ir(es.load(name)), es.normalize_to_ir(es.load(name, assignments(es.load(name))))
    assert kinds(ir) == kinds(full) and ir.head.type == full.head.type and ir.position.type == full.position.type
    es.compile_to_directory(ir, tmp_path / name, seed=1)
    steps = MORE_STEPS if name.startswith(("arch_expert_", "arch_advanced_mod")) else STEPS
    result = serve(tmp_path / name, tmp_path / "again", steps)
    assert "error" not in result, result["error"]
    assert result["parameters"] == es.count_parameters(ir) and result["layers"] == len(ir.layers)
    losses = result["losses"]
    assert len(losses) == steps and sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses
    assert result["finite"] and result["cached"] < TOLERANCE and result["reloaded"] < TOLERANCE
    with_cache, without = result["generated"]
    assert with_cache == without and len(with_cache[0]) > 20
