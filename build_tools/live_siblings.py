"""The checkout's build backend: hatchling, plus siblings that stay live under `pip install -e .`.

The root depends on its siblings by exact version, which is right for released wheels and useless in a checkout: pip
would look for them on the index. So the metadata that pip resolves for an *editable* install names the checkout's
folders instead. A direct reference is installed non-editable, therefore each one leads to a small project under
build/live/ whose only wheel is the sibling's editable wheel. Everything else is hatchling's, unchanged: wheels and
source distributions keep the pins, and so does the metadata that an editable install leaves behind.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from hatchling.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
]

ROOT = Path(__file__).resolve().parent.parent
REQUIRES = "Requires-Dist: "
LIVE_BACKEND = '''\
"""Builds the editable wheel of {folder} where a plain one is asked for."""

import os

os.chdir({folder!r})

from hatchling.build import build_editable, get_requires_for_build_editable as get_requires_for_build_wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return build_editable(wheel_directory, config_settings, metadata_directory)
'''


def siblings(root: Path = ROOT) -> dict[str, Path]:
    """The distributions that live in folders of this checkout, by name."""
    projects = [*root.glob("eulerstack-*/pyproject.toml"), *root.glob("eulerstack-plugins/*/pyproject.toml")]
    return {tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]: path.parent for path in projects}


def live_project(name: str, folder: Path) -> str:
    """Writes the project under build/live/ that installs `folder` live; gives its file:// address."""
    # Underscores: pip takes "a-b" for a name and a version, and would serve a stale wheel from its cache for ever.
    project = ROOT / "build" / "live" / name.replace("-", "_")
    project.mkdir(parents=True, exist_ok=True)
    requires = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    (project / "pyproject.toml").write_text(
        f'[build-system]\nrequires = {json.dumps(requires)}\nbuild-backend = "live"\nbackend-path = ["."]\n',
        encoding="utf-8",
    )
    (project / "live.py").write_text(LIVE_BACKEND.format(folder=str(folder)), encoding="utf-8")
    return project.as_uri()


def with_live_siblings(metadata: str) -> str:
    """`metadata` (the text of a METADATA file) with every requirement on a sibling turned into a direct reference."""
    folders = siblings()
    headers, blank, description = metadata.partition("\n\n")
    lines = headers.split("\n")
    for index, line in enumerate(lines):
        if line.startswith(REQUIRES):
            requirement = Requirement(line.removeprefix(REQUIRES))
            if requirement.name in folders:
                requirement.specifier = SpecifierSet()
                requirement.url = live_project(requirement.name, folders[requirement.name])
                lines[index] = f"{REQUIRES}{requirement}"
    return "\n".join(lines) + blank + description


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """PEP 660: the metadata by which an editable install is resolved; gives the name of the .dist-info folder."""
    with TemporaryDirectory() as folder, ZipFile(Path(folder, build_editable(folder, config_settings))) as wheel:
        members = [name for name in wheel.namelist() if ".dist-info/" in name and not name.endswith("/RECORD")]
        wheel.extractall(metadata_directory, members)
    name = members[0].split("/")[0]
    path = Path(metadata_directory, name, "METADATA")
    path.write_text(with_live_siblings(path.read_text(encoding="utf-8")), encoding="utf-8")
    return name
