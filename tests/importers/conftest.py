"""Reference models, their imported twins, and a cache for exported code that no other run shares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from eulerstack.compiler.importing import import_checkpoint
from tests.importers.cases import BY_NAME, Twins


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the code that from_pretrained copies out of the user's cache."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    patch = pytest.MonkeyPatch()
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    # A package that tests of this process have loaded from another cache would go on being looked for there.
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        patch.delitem(sys.modules, name)
    yield
    patch.undo()


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
