"""An exported model with fast weights loads where nothing of ours is installed, and generates the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.model.mixers.ttt import VARIANTS
from tests.model.test_export import lively_directory, offline


@pytest.mark.parametrize("name", ["ttt_hybrid", "ttt_mlp_adamw_steps"])
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    text = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class TTTLayer(" in text and "arXiv:2407.04620" in text
