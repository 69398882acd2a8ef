"""An exported model with an adaptive stage loads where nothing of ours is installed, and generates the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.model.mixers.integrators import stage, staged
from tests.model.test_export import lively_directory, offline

pytest.importorskip("torchdiffeq")


def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(tmp_path: Path) -> None:
    spec = staged("near", stage("ode_adaptive", 3, output="hidden", ode_adaptive={"method": "bosh3"}))
    model = lively_directory(spec, tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    text = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class AdaptiveSteps(" in text and "runge_kutta_4" not in text
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["use_cache"] is False
