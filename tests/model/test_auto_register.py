"""The auto classes of a program that has eulerstack: once told, they know the model without remote code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM  # noqa: E402
from transformers.models.auto import configuration_auto, modeling_auto  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.hf.auto_register import register_eulerstack_auto_classes  # noqa: E402
from eulerstack.hf.configuration import EulerStackConfig  # noqa: E402
from eulerstack.hf.models import EulerStackForCausalLM, EulerStackModel  # noqa: E402
from tests.model.specs import tiny_spec, tokens  # noqa: E402


@pytest.fixture
def registered() -> Iterator[None]:
    """Told, and told once more; forgotten after the test."""
    register_eulerstack_auto_classes()
    register_eulerstack_auto_classes()
    yield
    configuration_auto.CONFIG_MAPPING._extra_content.pop("eulerstack")
    for mapping in (modeling_auto.MODEL_MAPPING, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING):
        mapping._extra_content.pop(EulerStackConfig)


def test_a_directory_loads_without_its_own_code(registered: None, tmp_path: Path) -> None:
    ir = es.normalize_to_ir(tiny_spec())
    es.compile_to_directory(ir, tmp_path / "model")
    for file in (tmp_path / "model").glob("*.py"):
        file.unlink()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(model) is EulerStackForCausalLM and model.config.n_layers == len(ir.layers)
    assert type(AutoConfig.from_pretrained(tmp_path / "model")) is EulerStackConfig
    assert type(AutoModel.from_pretrained(tmp_path / "model")) is EulerStackModel
    ids = tokens()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, es.compile_to_hf_model(ir)(ids).logits)


def test_remote_code_goes_before_what_was_registered_where_it_is_trusted(registered: None, tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert type(model).__name__ == "EulerStackForCausalLM"
    assert model(tokens()).logits.shape[-1] == model.config.vocab_size
