"""The toy package as if it were installed, and models that are loaded where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eulerstack.plugins.manager import reset_registry

HERE = Path(__file__).parent

LOAD_WITHOUT_EULERSTACK = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("eulerstack", "eulerstack_mixers", "eulerstack_toy"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
ids = torch.tensor([json.loads(sys.argv[2])])
with torch.no_grad():
    logits = model(ids).logits
tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0)
print(json.dumps({"logits": logits[0, -1, :8].tolist(), "tokens": tokens[0].tolist()}))
"""


def loaded_elsewhere(directory: Path, ids: list[int], home: Path) -> dict[str, Any]:
    """The last logits and the generated tokens of a directory in a process that has nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_EULERSTACK, str(directory), json.dumps(ids)],
        check=True,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        cwd=home,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what installing the package would put into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    entries = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["eulerstack"].items())
    info.joinpath("entry_points.txt").write_text(f"[eulerstack]\n{entries}\n", encoding="utf-8")
    (folder / "eulerstack_toy").symlink_to(HERE / "src" / "eulerstack_toy")
    return folder


@pytest.fixture(scope="module")
def installed(site: Path) -> Iterator[None]:
    """The package is installed in this process, and messages are English unless a test says otherwise."""
    environment = pytest.MonkeyPatch()
    environment.setenv("EULERSTACK_LANG", "en")
    sys.path.insert(0, str(site))
    reset_registry()
    torch.set_num_threads(1)
    yield
    environment.undo()
    sys.path.remove(str(site))
    for name in [name for name in sys.modules if name.partition(".")[0] == "eulerstack_toy"]:
        del sys.modules[name]
    reset_registry()
