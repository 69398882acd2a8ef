"""`eulerstack compile` writes what was asked for, whole, and replaces nothing unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eulerstack.cli import compile as compile_module
from eulerstack.compiler.output import replacing_directory, replacing_file
from eulerstack.errors import CompileError
from tests.cli.conftest import PARAMS, Run


def test_print_config_gives_json_and_writes_nothing(run: Run, spec: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for option in ("--print-config", "--dry-run"):
        outcome = run("compile", "--preset", spec, option, "--output-dir", "x", "--output", "y.json")
        config = json.loads(outcome.out)
        assert outcome.code == 0 and config["model_type"] == "eulerstack" and config["num_hidden_layers"] == 3
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--output", "-o"])
def test_output_writes_the_same_json_to_a_file(run: Run, spec: Path, tmp_path: Path, option: str) -> None:
    outcome = run("compile", "--preset", spec, option, "compiled.json")
    assert outcome == (0, "Configuration saved: compiled.json\n", "")
    printed = run("compile", "--preset", spec, "--print-config").out
    assert json.loads((tmp_path / "compiled.json").read_text(encoding="utf-8")) == json.loads(printed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compiled.json", "tiny.yml"]


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_a_hyphen_is_no_file_and_the_option_for_it_is_named(run: Run, spec: Path, tmp_path: Path, option: str) -> None:
    before = sorted(tmp_path.iterdir())
    outcome = run("compile", spec, option, "-")
    assert outcome.code == 2 and outcome.out == "" and "--print-config" in outcome.err
    assert sorted(tmp_path.iterdir()) == before
    assert run("compile", spec, option, "./-").code == 0 and json.loads((tmp_path / "-").read_text())


def test_validate_only_checks_and_writes_nothing(run: Run, spec: Path, tmp_path: Path) -> None:
    assert run("compile", "--preset", spec, "--validate-only", "--output-dir", "out").code == 0
    assert not (tmp_path / "out").exists()
    spec.write_text("schema_version: 2\n", encoding="utf-8")
    assert run("compile", "--preset", spec, "--validate-only").code == 1


def test_a_file_is_replaced_only_with_force(run: Run, spec: Path, tmp_path: Path) -> None:
    target = tmp_path / "config.json"
    target.write_text("precious", encoding="utf-8")
    outcome = run("compile", spec, "--output", "config.json")
    assert outcome.code == 1 and outcome.err.startswith("CompileError: config.json: ")
    assert len(outcome.err.splitlines()) == 3 and target.read_text(encoding="utf-8") == "precious"
    assert run("compile", spec, "--output", "config.json", "--force").code == 0
    assert json.loads(target.read_text(encoding="utf-8"))["model_type"] == "eulerstack"


def test_a_directory_with_content_is_refused_before_anything_is_built(
    run: Run, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x", encoding="utf-8")
    monkeypatch.setattr(compile_module, "_write_directory", lambda *_: pytest.fail("it was built"))
    outcome = run("compile", spec, "--output-dir", "./out")
    assert outcome.code == 1 and outcome.err.startswith("CompileError: ./out: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize("target", ["missing/config.json", "a_folder", "/dev/full", "tiny.yml/config.json"])
def test_an_output_that_can_not_be_written_is_a_problem_of_three_lines(
    run: Run, spec: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "a_folder").mkdir()
    outcome = run("compile", spec, "--output", target, "--force")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3 and outcome.err.startswith("CompileError: ")
    assert list((tmp_path / "a_folder").iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    run: Run, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "config.json"
    target.write_text("old", encoding="utf-8")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert run("compile", spec, "--output", "config.json", "--force").code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "tiny.yml"]
    assert target.read_text(encoding="utf-8") == "old"


def test_nothing_to_write_is_a_mistake_in_the_command_line(run: Run, spec: Path) -> None:
    outcome = run("compile", spec)
    assert outcome.code == 2 and f"Fix: eulerstack compile --preset {spec} --output-dir" in outcome.err


def test_a_model_directory_is_announced_in_the_promised_lines(run: Run, spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    outcome = run("compile", "--preset", spec, "--output-dir", "./my_model", "--seed", "7")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "HF model saved: ./my_model",
        "model_type: eulerstack",
        f"params: {PARAMS / 1000:.1f}K ({PARAMS:,})",
        "layers: 3",
        "load: AutoModelForCausalLM.from_pretrained('./my_model', trust_remote_code=True)",
    ]
    written = {path.name for path in (tmp_path / "my_model").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_eulerstack.py", "configuration_eulerstack.py"} <= written
    assert (tmp_path / "my_model" / "spec.yml").read_bytes() == spec.read_bytes()


@pytest.mark.parametrize("directory", [".", "..", "~"])
def test_the_working_directory_those_above_it_and_home_are_never_replaced(
    run: Run, spec: Path, tmp_path: Path, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("x", encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    outcome = run("compile", spec, "--output-dir", str(home) if directory == "~" else directory, "--force")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3
    assert spec.exists() and (home / "precious").exists()


@pytest.mark.parametrize("arguments", [("--output", "tiny.yml"), ("--output-dir", "holder")])
def test_the_spec_itself_is_never_replaced(run: Run, spec: Path, tmp_path: Path, arguments: tuple[str, str]) -> None:
    text = spec.read_text(encoding="utf-8")
    (tmp_path / "holder").mkdir()
    inside = tmp_path / "holder" / "tiny.yml"
    inside.write_text(text, encoding="utf-8")
    chosen = inside if arguments[0] == "--output-dir" else spec
    outcome = run("compile", chosen, *arguments, "--force")
    assert outcome.code == 1 and "the spec itself" in outcome.err
    assert chosen.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("output", ["missing/x.json", "out", "out/config.json"])
def test_two_outputs_are_written_together_or_not_at_all(run: Run, spec: Path, tmp_path: Path, output: str) -> None:
    outcome = run("compile", spec, "--output-dir", "out", "--output", output)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yml"]


def test_a_closed_standard_output_is_no_defect(spec: Path) -> None:
    command = f'"{sys.executable}" -c "from eulerstack.cli import main; raise SystemExit(main())" explain "{spec}" >&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "defect" not in done.stderr


def test_of_two_that_write_to_one_place_at_once_the_second_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    with pytest.raises(CompileError, match="--force"), replacing_directory(place, force=False) as late:
        (late / "config.json").write_text("late")
        with replacing_directory(place, force=False) as early:
            (early / "config.json").write_text("early")
    assert (place / "config.json").read_text() == "early"
    file = tmp_path / "config.json"
    with pytest.raises(CompileError, match="--force"), replacing_file(file, "late", force=False):
        file.write_text("early")
    assert file.read_text() == "early" and sorted(tmp_path.iterdir()) == [file, place]
