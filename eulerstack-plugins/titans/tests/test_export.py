"""An exported model with memories loads where nothing of ours is installed, and generates and steps as here."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.model.mixers.memory import VARIANTS
from tests.model.specs import changed, tiny_spec
from tests.model.test_export import lively_directory, offline


def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(tmp_path: Path) -> None:
    model = lively_directory(VARIANTS["memory_hybrid"], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    text = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class NeuralMemory(" in text and "arXiv:2501.00663" in text
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    hidden_states = torch.randn(1, 5, 36, generator=torch.Generator().manual_seed(0))
    assert loaded.step_memory_at_inference(hidden_states) == model.step_memory_at_inference(hidden_states)


def test_an_export_without_memories_holds_nothing_of_them(tmp_path: Path) -> None:
    lively_directory(changed(tiny_spec(), {}), tmp_path / "model")
    text = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "MemoryModule" not in text and "step_memory_at_inference" not in text
    assert '"memory"' not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
