"""Packages that are installed for a module of tests: found by their entry points, forgotten afterwards."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eulerstack.plugins.manager import reset_registry

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "gated_conv"


def put_into(site: Path, project_folder: Path) -> None:
    """Puts into a folder what installing a project would put into site-packages."""
    project = tomllib.loads((project_folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    entries = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["eulerstack"].items())
    info.joinpath("entry_points.txt").write_text(f"[eulerstack]\n{entries}\n", encoding="utf-8")
    for package in (project_folder / "src").iterdir():
        (site / package.name).symlink_to(package)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """A function that installs a project in this process."""
    site = tmp_path_factory.mktemp("site")
    sys.path.insert(0, str(site))

    def installed(project_folder: Path) -> None:
        put_into(site, project_folder)
        reset_registry()

    yield installed
    sys.path.remove(str(site))
    packages = {path.name for path in site.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
    reset_registry()
