"""The wheels hold what they must, name what they need, and leak nothing of the machine that built them."""

from __future__ import annotations

import tomllib
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

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
NAMES = (
    "eulerstack",
    "eulerstack-core",
    "eulerstack-mixers",
    "eulerstack-ode",
    "eulerstack-tensor",
    "eulerstack-titans",
    "eulerstack-ttt",
)


def members(wheel: Path) -> set[str]:
    """The names of a wheel's files."""
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def text(wheel: Path, name: str) -> str:
    """A file of a wheel's .dist-info folder."""
    with ZipFile(wheel) as archive:
        (member,) = (member for member in archive.namelist() if member.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def metadata(wheel: Path) -> Message:
    """A wheel's METADATA."""
    return Parser().parsestr(text(wheel, "METADATA"))


def entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    """A wheel's entry points by group."""
    parser = ConfigParser()
    parser.read_string(text(wheel, "entry_points.txt"))
    return {section: dict(parser[section]) for section in parser.sections()}


def sources(folder: Path) -> set[str]:
    """Every file below `folder`, relative to its parent, without what Python leaves behind."""
    files = {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def test_there_is_one_wheel_for_each_distribution(wheels: dict[str, Path]) -> None:
    assert sorted(wheels) == sorted(NAMES)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("eulerstack", "presets/eulerstack_presets"),
        ("eulerstack-core", "eulerstack-core/src/eulerstack"),
        ("eulerstack-mixers", "eulerstack-mixers/src/eulerstack_mixers"),
        ("eulerstack-ode", "eulerstack-plugins/ode/src/eulerstack_ode"),
        ("eulerstack-tensor", "eulerstack-plugins/tensor/src/eulerstack_tensor"),
        ("eulerstack-titans", "eulerstack-plugins/titans/src/eulerstack_titans"),
        ("eulerstack-ttt", "eulerstack-plugins/ttt/src/eulerstack_ttt"),
    ],
)
def test_a_wheel_holds_its_package_complete_and_nothing_else(wheels: dict[str, Path], name: str, folder: str) -> None:
    held = {member for member in members(wheels[name]) if ".dist-info/" not in member}
    assert held == sources(ROOT / folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_bears_the_license(wheels: dict[str, Path], name: str) -> None:
    assert metadata(wheels[name])["License-Expression"] == "Apache-2.0"
    assert text(wheels[name], "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_core_ships_every_catalog_beside_its_source(wheels: dict[str, Path]) -> None:
    held = members(wheels["eulerstack-core"])
    for language in ("ko", "zh", "ja", "es"):
        for ending in ("po", "mo"):
            assert f"eulerstack/i18n/locale/{language}/LC_MESSAGES/eulerstack.{ending}" in held


def test_presets_and_their_tokenizer_ship_with_the_root(wheels: dict[str, Path]) -> None:
    held = members(wheels["eulerstack"])
    assert "eulerstack_presets/llm_0p1b_simple.yml" in held
    assert "eulerstack_presets/tokenizers/bpe-32k/tokenizer.json" in held
    assert "eulerstack_presets/tokenizers/bpe-32k/tokenizer_config.json" in held


@pytest.mark.parametrize("name", NAMES)
def test_requirements_name_no_file_and_no_address(wheels: dict[str, Path], name: str) -> None:
    assert [line for line in metadata(wheels[name]).get_all("Requires-Dist", []) if Requirement(line).url] == []
    assert "file:" not in text(wheels[name], "METADATA")


@pytest.mark.parametrize("name", NAMES)
def test_requirements_on_our_own_distributions_are_pinned_to_the_same_version(
    wheels: dict[str, Path], name: str
) -> None:
    version = metadata(wheels["eulerstack"])["Version"]
    assert metadata(wheels[name])["Version"] == version
    for line in metadata(wheels[name]).get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.name.startswith("eulerstack"):
            assert str(requirement.specifier) == f"=={version}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_ours_requires_the_name_that_the_index_gave_to_another_project(
    wheels: dict[str, Path], name: str
) -> None:
    assert "eulerstack" not in {Requirement(line).name for line in metadata(wheels[name]).get_all("Requires-Dist", [])}
    assert Version(metadata(wheels[name])["Version"]) >= Version("1.0.0")


def test_packages_of_single_primitives_come_by_extra_alone(wheels: dict[str, Path]) -> None:
    requirements = [Requirement(line) for line in metadata(wheels["eulerstack"]).get_all("Requires-Dist", [])]
    for name in ("ode", "tensor", "titans", "ttt"):
        markers = {str(each.marker) for each in requirements if each.name == f"eulerstack-{name}"}
        assert markers == {f'extra == "{name}"', 'extra == "all"'}


def test_the_core_alone_needs_no_torch(wheels: dict[str, Path]) -> None:
    requirements = [Requirement(line) for line in metadata(wheels["eulerstack-core"]).get_all("Requires-Dist", [])]
    always = {requirement.name for requirement in requirements if requirement.marker is None}
    extras = {name: {each.name for each in requirements if str(each.marker) == f'extra == "{name}"'}
              for name in ("hf", "testing", "train")}  # fmt: skip
    assert always == {"jsonschema", "packaging", "pluggy", "pyyaml", "rich", "typer"}
    assert extras["hf"] == {"huggingface-hub", "safetensors", "tokenizers", "torch", "transformers"}
    assert extras["train"] == {"accelerate", "datasets", "matplotlib"} and extras["testing"] == {"pytest"}


def test_entry_points_are_those_that_the_manager_reads(wheels: dict[str, Path]) -> None:
    assert entry_points(wheels["eulerstack-core"]) == {"console_scripts": {"eulerstack": "eulerstack.cli:main"}}
    assert entry_points(wheels["eulerstack-mixers"]) == {"eulerstack": {"mixers": "eulerstack_mixers.plugin"}}
    assert entry_points(wheels["eulerstack-ode"]) == {"eulerstack": {"ode": "eulerstack_ode.plugin"}}
    assert entry_points(wheels["eulerstack-tensor"]) == {"eulerstack": {"tensor": "eulerstack_tensor.plugin"}}
    assert entry_points(wheels["eulerstack-titans"]) == {"eulerstack": {"titans": "eulerstack_titans.plugin"}}
    assert entry_points(wheels["eulerstack-ttt"]) == {"eulerstack": {"ttt": "eulerstack_ttt.plugin"}}
    assert entry_points(wheels["eulerstack"]) == {"eulerstack": {"presets": "eulerstack_presets"}}


@pytest.mark.parametrize("project", PROJECTS)
def test_every_project_is_built_by_hatchling_alone(project: str) -> None:
    data = tomllib.loads((ROOT / project / "pyproject.toml").read_text(encoding="utf-8"))
    assert [Requirement(line).name for line in data["build-system"]["requires"]] == ["hatchling"]
