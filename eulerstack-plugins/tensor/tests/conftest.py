"""Small models with tensor networks, and the package's plain references."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import eulerstack as es

if find_spec("eulerstack_tensor") is None:
    collect_ignore_glob = ["test_*.py"]

torch.set_num_threads(1)
KEY = "vendor.tensor.weight_form"
FORMS = ("tt", "mps", "mera")
SPEC: dict[str, Any] = {
    "schema_version": 1,
    "model": {
        "name": "tiny", "d_model": 48, "vocab_size": 53, "max_seq_len": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 80,
        "dtype": "float32",
    },
    "tokenizer_contract": {"type": "hf"},
    "embedding": {"type": "learned", "positional": "rope"},
    "layer_templates": {
        "decoder": {
            "mixer": {"type": "attention", "attention": {"qkv_bias": True}},
            "ffn": {"type": "gated_mlp"},
        }
    },
    "layer_schedule": [{"template": "decoder", "repeat": 2}],
    "head": {"type": "causal_lm"},
}  # fmt: skip


def spec(value: Any = None, **sections: Any) -> dict[str, Any]:
    """The small spec, with the key's value at the top level."""
    made = copy.deepcopy({**SPEC, **sections})
    return made if value is None else {**made, KEY: value}


def model_of(given: dict[str, Any], seed: int = 0) -> Any:
    return es.compile_to_hf_model(es.normalize_to_ir(given), seed=seed)


def networks(model: torch.nn.Module) -> dict[str, Any]:
    """The modules that are tensor networks, by their names."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "dense_weight")}


def some_ids(time: int = 9) -> torch.Tensor:
    return torch.randint(1, 53, (2, time), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tools() -> SimpleNamespace:
    """What every test here is made of."""
    return SimpleNamespace(KEY=KEY, spec=spec, model_of=model_of, networks=networks, some_ids=some_ids)


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the small model without the key."""
    return es.compile_to_directory(es.normalize_to_ir(spec()), tmp_path_factory.mktemp("models") / "dense", seed=0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`form` is every form of weights but the dense one."""
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", FORMS)
