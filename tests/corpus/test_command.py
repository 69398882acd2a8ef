"""The corpus through the command itself: exit code, three lines for each problem on stderr, nothing else anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eulerstack.cli import main
from tests.corpus.harness import BASE, SECONDS, Case, changed, deadline
from tests.corpus.test_corpus import CASES

COMMANDS = {
    "validate": ("validate", "spec.yml"),
    "report": ("validate", "--report", "--preset", "spec.yml"),
    "explain": ("explain", "spec.yml"),
    "compile": ("compile", "spec.yml", "--output-dir", "out", "--output", "config.json"),
}
PROGRAM = "import sys; from eulerstack.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def ordinary_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command as a user runs it, in an empty folder."""
    pytest.importorskip("eulerstack_mixers.plugin")
    for variable in ("EULERSTACK_STRICT_PLUGINS", "EULERSTACK_DISABLE_PLUGINS", "EULERSTACK_LANG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def assert_reported(case: Case, code: int, out: str, err: str) -> None:
    """That the command failed with the case's problems, each in its three lines and at its place."""
    lines = err.removesuffix("\n").split("\n")
    assert (code, out) == (1, ""), err
    assert len(lines) == 3 * len(case.problems), err
    for index, ((line, column), (path, what, fix)) in enumerate(
        zip(case.expected_places(), case.problems, strict=True)
    ):
        head, fix_line, see = lines[3 * index : 3 * index + 3]
        assert head.startswith(": ".join([case.category, f"spec.yml:{line}:{column}", *([path] if path else []), ""]))
        assert what in head and fix_line.startswith("Fix: ") and fix in fix_line, err
        assert see.startswith("See: ") and "#" in see


@pytest.mark.parametrize("case", CASES)
def test_validate_reports_every_fault_on_stderr_alone(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("spec.yml").write_bytes(case.content())
    with deadline(SECONDS):
        code = main(["--lang", "en", *COMMANDS["validate"], "--max-errors", "0"])
    assert_reported(case, code, *capsys.readouterr())
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yml"]


# One case of every kind of file goes through the other commands, and through a process of its own.
KINDS = ("text", "expressions", "structure", "compatibility")
SAMPLES = [case for kind in KINDS for case in [each for each in CASES if f"cases_{kind}:" in str(each.id)][::12]]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", SAMPLES)
def test_no_command_writes_anything_for_a_faulty_spec(
    case: Case, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("spec.yml").write_bytes(case.content())
    with deadline(SECONDS):
        code = main(["--lang", "en", *COMMANDS[command]])
    assert_reported(case, code, *capsys.readouterr())
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yml"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", SAMPLES[::4])
def test_a_process_of_its_own_does_the_same(case: Case, command: str, tmp_path: Path) -> None:
    Path("spec.yml").write_bytes(case.content())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--lang", "en", *COMMANDS[command]],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert_reported(case, done.returncode, done.stdout, done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yml"]


def test_a_long_list_is_cut_where_it_is_asked_for_and_still_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("spec.yml").write_text(BASE + "".join(f"unknown{index}: 1\n" for index in range(30)))
    for limit, shown in ((None, 20), (1, 1), (0, 30)):
        options = [] if limit is None else ["--max-errors", str(limit)]
        assert main(["--lang", "en", "validate", "spec.yml", *options]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 3 * shown


def test_the_same_commands_accept_the_base_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("spec.yml").write_text(changed("name: tiny", "name: fine"))
    for command in ("validate", "report", "explain"):
        assert main(["--lang", "en", *COMMANDS[command]]) == 0
        out, err = capsys.readouterr()
        assert out and err == ""
