"""`pip install -e .` installs the siblings from the checkout, live, and asks no index for any name of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

SHOW = """
import importlib.metadata as metadata, json, eulerstack, eulerstack_mixers, eulerstack_presets
print(json.dumps({
    "files": [module.__file__ for module in (eulerstack, eulerstack_mixers, eulerstack_presets)],
    "versions": {name: metadata.version(name) for name in ("eulerstack", "eulerstack-core", "eulerstack-mixers")},
    "requires": metadata.requires("eulerstack"),
    "plugins": sorted(point.value for point in metadata.entry_points(group="eulerstack")),
}))
"""


INSTALL = ("install", "--no-index", "--no-build-isolation", "--editable")
SHOW_EXTRA = """
import importlib.metadata as metadata, json, eulerstack.plugins.ttt, eulerstack_ttt
from eulerstack.plugins.manager import get_registry
print(json.dumps([eulerstack_ttt.__file__, metadata.version("eulerstack-ttt"), get_registry().names("mixer")]))
"""


def pip(interpreter: Path, checkout: Path, *arguments: str) -> None:
    """Runs pip in the checkout, untouched by this machine's settings; it must succeed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [interpreter, "-m", "pip", *arguments],
        cwd=checkout,
        env={**variables, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """The interpreter of a fresh environment into which the checkout was installed.

    It sees what others wrote from this environment and nothing of ours; pip may ask no index at all, so whatever pip
    takes for eulerstack, eulerstack-core or eulerstack-mixers comes from the checkout.
    """
    folder = tmp_path_factory.mktemp("environment")
    theirs = folder / "theirs"
    theirs.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "eulerstack" not in path.name.lower() and path.suffix != ".pth":
            (theirs / path.name).symlink_to(path)
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    interpreter = folder / "venv" / "bin" / "python"
    site_packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (site_packages / "theirs.pth").write_text(f"{theirs}\n", encoding="utf-8")
    # The old setuptools that venv brings would hide the one that torch asks for.
    pip(interpreter, checkout, "uninstall", "--yes", "setuptools")
    pip(interpreter, checkout, *INSTALL, ".")
    return interpreter


@pytest.fixture(scope="module")
def seen(python: Path) -> dict[str, object]:
    """What the fresh environment knows of our packages."""
    done = subprocess.run([python, "-I", "-c", SHOW], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_all_packages_are_imported_from_the_checkout(seen: dict[str, list[str]], checkout: Path) -> None:
    assert [Path(file).is_relative_to(checkout) for file in seen["files"]] == [True, True, True]


def test_a_change_in_the_checkout_is_seen_without_installing_again(python: Path, checkout: Path) -> None:
    new = checkout / "eulerstack-mixers" / "src" / "eulerstack_mixers" / "just_written.py"
    new.write_text("ANSWER = 42\n", encoding="utf-8")
    try:
        command = [python, "-I", "-c", "from eulerstack_mixers.just_written import ANSWER; print(ANSWER)"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "42\n"
    finally:
        new.unlink()


def test_each_distribution_is_installed_at_the_same_version(seen: dict[str, dict[str, str]]) -> None:
    assert set(seen["versions"].values()) == {"1.0.0"}


def test_the_installed_metadata_keeps_the_pins_of_a_release(seen: dict[str, list[str]]) -> None:
    assert "eulerstack-core[hf]==1.0.0" in seen["requires"]
    assert "eulerstack-mixers==1.0.0" in seen["requires"]


def test_the_plugins_are_found_once_each(seen: dict[str, list[str]]) -> None:
    assert seen["plugins"] == ["eulerstack_mixers.plugin", "eulerstack_presets"]


def test_pip_finds_nothing_missing_or_contradictory(python: Path) -> None:
    done = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_is_installed(python: Path) -> None:
    command = [python.parent / "eulerstack", "--lang", "en", "presets", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "llm_0p1b_simple" in done.stdout


def test_these_tests_run_on_another_environment(python: Path) -> None:
    assert python.parent.parent != Path(sys.prefix)


def test_an_extra_installs_its_package_live_from_the_checkout(
    python: Path, seen: dict[str, object], checkout: Path
) -> None:
    missing = subprocess.run([python, "-I", "-c", SHOW_EXTRA], capture_output=True, text=True, check=False)
    assert "pip install eulerstack-ttt" in missing.stderr
    pip(python, checkout, *INSTALL, ".[ttt]")
    done = subprocess.run([python, "-I", "-c", SHOW_EXTRA], capture_output=True, text=True, check=True)
    file, version, mixers = json.loads(done.stdout)
    assert Path(file).is_relative_to(checkout) and version == "1.0.0"
    assert {"attention", "ttt_layer"} <= set(mixers)
