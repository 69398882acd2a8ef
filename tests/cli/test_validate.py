"""`eulerstack validate` says whether a spec is one, in words, in JSON and by its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import PARAMS, SPEC, Run


def broken(spec: Path, count: int = 1) -> Path:
    lines = "".join(f"unknown_{index}: 1\n" for index in range(count))
    spec.write_text(SPEC + lines, encoding="utf-8")
    return spec


@pytest.mark.parametrize("form", [("--preset",), ("-p",), ()])
def test_a_valid_spec_is_named_and_the_command_succeeds(run: Run, spec: Path, form: tuple[str, ...]) -> None:
    outcome = run("validate", *form, spec)
    assert outcome == (0, f"Valid: {spec}\n", "")


def test_a_preset_is_found_by_its_name(run: Run) -> None:
    outcome = run("validate", "--preset", "llm_0p1b_simple")
    assert outcome.code == 0 and "llm_0p1b_simple.yml" in outcome.out


def test_a_file_in_the_current_folder_goes_before_a_preset_of_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "llm_0p1b_simple").write_text("nonsense: 1\n", encoding="utf-8")
    assert run("validate", "llm_0p1b_simple").code == 1


def test_the_report_gives_schema_params_layers_and_findings(run: Run, spec: Path) -> None:
    spec.write_text(SPEC + "vendor.acme.telemetry: { endpoint: x }\n", encoding="utf-8")
    outcome = run("validate", "--preset", spec, "--report")
    assert outcome.code == 0 and outcome.err == ""
    assert "Schema: ok" in outcome.out
    assert f"({PARAMS:,})" in outcome.out
    assert "Layers: 3" in outcome.out
    finding = next(line for line in outcome.out.splitlines() if "[reserved_namespace]" in line)
    assert f"{spec}:13:" in finding and "vendor.acme.telemetry" in finding


def test_the_report_for_programs_holds_the_same(run: Run, spec: Path) -> None:
    data = json.loads(run("validate", spec, "--report", "--json").out)
    assert data["valid"] is True and data["params"] == PARAMS and data["layers"] == 3
    assert {"rule", "package", "path", "location", "what"} == set(data["findings"][0])


def test_every_problem_takes_exactly_three_lines_on_stderr_and_none_on_stdout(run: Run, spec: Path) -> None:
    outcome = run("validate", broken(spec, 3))
    lines = outcome.err.splitlines()
    assert outcome.code == 1 and outcome.out == "" and len(lines) == 9
    for index in range(3):
        head, fix, see = lines[3 * index : 3 * index + 3]
        assert head.startswith(f"ValidationError: {spec}:{13 + index}:1: unknown_{index}: ")
        assert fix.startswith("Fix: ") and len(fix) > len("Fix: ")
        assert see.startswith("See: ") and "#" in see


@pytest.mark.parametrize(("asked", "shown"), [(["--max-errors", "2"], 2), ([], 20), (["--max-errors", "0"], 30)])
def test_the_number_of_problems_shown_can_be_chosen(run: Run, spec: Path, asked: list[str], shown: int) -> None:
    assert len(run("validate", broken(spec, 30), *asked).err.splitlines()) == 3 * shown


def test_json_gives_every_problem_and_still_fails(run: Run, spec: Path) -> None:
    outcome = run("validate", broken(spec, 30), "--json")
    data = json.loads(outcome.out)
    assert outcome.code == 1 and data["valid"] is False and len(data["diagnostics"]) == 30
    assert data["diagnostics"][0]["location"] == {"file": str(spec), "line": 13, "column": 1}


@pytest.mark.parametrize("name", ["llm_0p1b_simpl", "LLM-0p1B-simple", "llm_0p1b_simple.yml"])
def test_a_name_that_is_neither_file_nor_preset_is_met_with_the_nearest_preset(run: Run, name: str) -> None:
    outcome = run("validate", name)
    assert outcome.code == 1 and "Fix: use the preset llm_0p1b_simple" in outcome.err


@pytest.mark.parametrize("name", ["missing.yml", "./missing", ".", "x" * 300, "x" * 300 + ".yml"])
def test_a_path_that_can_not_be_read_is_a_problem_of_three_lines(run: Run, name: str) -> None:
    outcome = run("validate", name)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3 and outcome.err.startswith("ValidationError: ")


def test_a_link_that_leads_nowhere_is_not_offered_as_its_own_cure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("modle.yml").symlink_to("nowhere.yml")
    assert "Fix: Type" not in run("validate", "modle.yml").err


def test_control_characters_of_a_spec_do_not_reach_the_terminal(run: Run, spec: Path) -> None:
    spec.write_text(SPEC + '"un\\eknown": 1\n', encoding="utf-8")
    outcome = run("validate", spec)
    assert outcome.code == 1 and "\x1b" not in outcome.err and len(outcome.err.splitlines()) == 3


def test_validate_only_is_accepted(run: Run, spec: Path) -> None:
    assert run("validate", spec, "--validate-only").code == 0
