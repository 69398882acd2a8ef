"""Files that must agree with each other do."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import eulerstack

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = ("pyproject.toml", "eulerstack-*/pyproject.toml", "eulerstack-plugins/*/pyproject.toml")
PROJECTS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))


def project(path: Path) -> dict:
    """The [project] table of a pyproject.toml."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def constraints(name: str) -> dict[str, str]:
    """The versions of a constraints file by normalised name."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {each.name.lower().replace("_", "-"): str(each.specifier).removeprefix("==") for each in requirements}


def test_every_distribution_and_the_module_say_the_same_version() -> None:
    versions = {project(path)["version"] for path in PROJECTS}
    cited = str(yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"])
    assert versions | {eulerstack.__version__, cited} == {"1.0.0"}


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_every_project_carries_the_same_license(path: Path) -> None:
    assert (path.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_every_direct_requirement_has_a_tested_version_that_fits(path: Path) -> None:
    data = project(path)
    lines = data["dependencies"] + sum(data.get("optional-dependencies", {}).values(), [])
    tested = constraints("constraints.txt")
    for requirement in map(Requirement, lines):
        if not requirement.name.startswith("eulerstack"):
            assert requirement.specifier.contains(tested[requirement.name.lower()]), requirement


def test_the_oldest_transformers_tested_is_the_oldest_allowed() -> None:
    lines = project(ROOT / "eulerstack-core" / "pyproject.toml")["optional-dependencies"]["hf"]
    (allowed,) = (each.specifier for each in map(Requirement, lines) if each.name == "transformers")
    oldest = constraints("constraints-oldest.txt")["transformers"]
    assert f">={oldest}" in map(str, allowed)
    assert constraints("constraints-oldest.txt")["torch"] == constraints("constraints.txt")["torch"]


def test_the_range_of_torch_ends_at_the_version_tested() -> None:
    lines = project(ROOT / "eulerstack-core" / "pyproject.toml")["optional-dependencies"]["hf"]
    (allowed,) = (each.specifier for each in map(Requirement, lines) if each.name == "torch")
    tested = constraints("constraints.txt")["torch"]
    major, minor, _ = tested.split(".")
    assert allowed.contains(tested)
    assert not (allowed & SpecifierSet(f">={major}.{int(minor) + 1}")).contains(f"{major}.{int(minor) + 1}.0")


def test_make_alone_lists_every_command() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    printed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make ([a-z]+) ", printed.stdout, re.M)) == targets


def test_the_commit_hook_checks_every_file_and_fails_for_one_bad_one(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    program = "import sys; from eulerstack.cli import main; sys.exit(main())"
    command = tmp_path / "eulerstack"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "EULERSTACK_LANG": "en"}

    def checked(*files: Path) -> subprocess.CompletedProcess[str]:
        words = [*shlex.split(hook["entry"]), *map(str, files)]
        return subprocess.run(words, env=variables, capture_output=True, text=True, check=False)

    good = [ROOT / "presets" / "eulerstack_presets" / f"llm_0p1b_{name}.yml" for name in ("simple", "mistral")]
    bad = tmp_path / "bad.yml"
    bad.write_text("schema_version: 1\n", encoding="utf-8")
    assert checked(*good).returncode == 0
    found = checked(bad, *good)
    assert found.returncode == 1
    assert "ValidationError" in found.stderr and found.stdout.count("Valid") == 2
