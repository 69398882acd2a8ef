"""The vendor packages as if they were installed, and what their presets compile to."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from eulerstack.plugins.manager import reset_registry

HERE = Path(__file__).parent
PROJECTS = sorted(HERE.glob("*/pyproject.toml"))


@pytest.fixture(scope="package")
def aviary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All packages are installed in this process."""
    site = tmp_path_factory.mktemp("site")
    for file in PROJECTS:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        module = project["name"].replace("-", "_")
        info = site / f"{module}-{project['version']}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
        )
        entries = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["eulerstack"].items())
        info.joinpath("entry_points.txt").write_text(f"[eulerstack]\n{entries}\n", encoding="utf-8")
        (site / module).symlink_to(file.parent / "src" / module)
    sys.path.insert(0, str(site))
    reset_registry()
    torch.set_num_threads(1)
    yield
    sys.path.remove(str(site))
    reset_registry()
