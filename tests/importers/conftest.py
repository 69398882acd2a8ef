"""Reference models and their imported twins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from eulerstack.compiler.importing import import_checkpoint
from tests.importers.cases import BY_NAME, Twins


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    """One thread, and no warnings of transformers about the reference models."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def twins_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Twins]:
    """Builds, saves, imports and loads a case once for all tests."""
    made: dict[str, Twins] = {}
    root = tmp_path_factory.mktemp("twins")

    def make(name: str) -> Twins:
        if name not in made:
            case = BY_NAME[name]
            reference = case.build()
            source, directory = root / f"{name}_source", root / f"{name}_imported"
            reference.save_pretrained(source)
            import_checkpoint(source, directory)
            ours = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()
            made[name] = Twins(case, reference, source, directory, ours)
        return made[name]

    return make
