"""README.md and its neighbours tell the truth: commands, specs and links in them work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = ("*.md", "eulerstack-*/README.md", "eulerstack-plugins/*/README.md", "presets/**/*.md")
PAGES = sorted(page for places in PLACES for page in ROOT.glob(places))
NEEDS_TORCH = {"compile": ["--validate-only"], "import": ["--help"], "export": ["--help"]}


def blocks(language: str) -> list[str]:
    """The fenced blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def shell_commands(first_word: str) -> list[str]:
    """The lines of README.md's shell blocks that begin with a word, without their comments."""
    lines = [line.partition(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{first_word} ")]


def eulerstack(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a folder."""
    program = "import sys; from eulerstack.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, "--lang", "en", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with README.md's spec as my_model.yml."""
    (tmp_path / "my_model.yml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


def test_every_make_command_it_shows_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    shown = {word for line in shell_commands("make") for word in line.split()[1:]} | set(
        re.findall(r"`make ([a-z]+)`", README)
    )
    assert {"quickstart", "test"} <= shown
    assert shown - targets == set()


@pytest.mark.parametrize("line", shell_commands("eulerstack"))
def test_every_command_it_shows_runs(line: str, folder: Path) -> None:
    words, _, saved_as = (shlex.split(part) for part in line.removeprefix("eulerstack ").partition(" > "))
    if words[0] == "export-spec":
        # All that it reads of a compiled directory, and that needs no torch.
        (folder / words[1]).mkdir()
        made = eulerstack("compile", "--preset", "my_model.yml", "--output", f"{words[1]}/config.json", folder=folder)
        assert made.returncode == 0, made.stderr
    done = eulerstack(*words, *NEEDS_TORCH.get(words[0], []), folder=folder)
    # `diff` says by its exit code that there is a difference, the doctor that eulerstack-ode lacks what it wraps.
    expected = 3 if words[0] == "diff" else int(words[1:] == ["doctor"] and find_spec("torchdiffeq") is None)
    assert done.returncode == expected, done.stdout + done.stderr
    for name in saved_as:
        (folder / name).write_text(done.stdout, encoding="utf-8")
        assert eulerstack("validate", name, folder=folder).returncode == 0


def test_its_spec_passes_without_a_warning(folder: Path) -> None:
    done = eulerstack("validate", "--preset", "my_model.yml", "--report", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert '"findings": []' in done.stdout


def test_its_diff_applies_to_its_spec_and_gives_another_valid_one(folder: Path) -> None:
    lines = blocks("diff")[0].splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    path = folder / "my_model.yml"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    done = eulerstack("validate", "--preset", "my_model.yml", folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []
