"""What the packaging tests share: the wheels, built once, and a copy of the checkout to install from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = (
    ".",
    "eulerstack-core",
    "eulerstack-mixers",
    "eulerstack-plugins/ode",
    "eulerstack-plugins/tensor",
    "eulerstack-plugins/titans",
    "eulerstack-plugins/ttt",
)
SHIPPED = (
    "build_tools",
    "eulerstack-core",
    "eulerstack-mixers",
    "eulerstack-plugins",
    "presets",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "dist", "build")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an install from a checkout reads, copied to a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a checkout")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> dict[str, Path]:
    """The wheels by the name of their distribution, built with the hatchling of this environment."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in PROJECTS:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, checkout / project],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    return {path.name.split("-")[0].replace("_", "-"): path for path in sorted(folder.glob("*.whl"))}
