"""Specs changed by `--set`, several specs at once, and specs taken back from compiled directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import PARAMS, Run


def test_a_changed_spec_is_validated_explained_and_configured(run: Run, spec: Path) -> None:
    wide = ("--set", "model.d_model=64", "--set", "layer_schedule[0].repeat=1")
    assert run("validate", spec, *wide).code == 0
    explained = json.loads(run("explain", spec, *wide, "--json").out)
    assert (explained["model"]["d_model"], explained["total_layers"]) == (64, 2)
    config = json.loads(run("compile", spec, *wide, "--print-config").out)
    assert (config["hidden_size"], config["num_hidden_layers"]) == (64, 2)


def test_a_wrong_value_names_the_option_in_place_of_the_file(run: Run, spec: Path) -> None:
    outcome = run("validate", spec, "--set", "model.d_modell=64")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3
    assert outcome.err.startswith("ValidationError: --set model.d_modell:1:1: model.d_modell: unknown key")


def test_several_specs_give_one_verdict_each_and_all_problems_together(run: Run, spec: Path, tmp_path: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yml").write_text(text.replace("d_model", f"d_model_{name}"), encoding="utf-8")
    outcome = run("validate", spec, "one.yml", "llm_0p1b_simple", "two.yml")
    assert outcome.code == 1
    assert [line.partition(": ")[0] for line in outcome.out.splitlines()] == ["Valid", "Valid"]
    assert outcome.err.count("one.yml:") == 1 == outcome.err.count("two.yml:") and len(outcome.err.splitlines()) == 6
    outcome = run("validate", spec, "one.yml", "--json")
    data = json.loads(outcome.out)
    assert outcome.code == 1 and data["valid"] is False
    assert [(each["file"], each["valid"]) for each in data["files"]] == [(str(spec), True), ("one.yml", False)]
    assert run("validate", spec, spec, "--json").code == 0


def test_a_directory_gives_its_spec_back_and_compiling_that_gives_the_same_bytes(
    run: Run, spec: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    assert run("compile", spec, "--output-dir", "one", "--seed", "7").code == 0
    assert run("export-spec", "one").out == spec.read_text(encoding="utf-8")
    outcome = run("export-spec", "one", "-o", "again.yml")
    assert outcome.code == 0 and outcome.out.splitlines()[1].endswith("one-again --seed 7")
    assert run(*outcome.out.splitlines()[1].partition("eulerstack ")[2].split()).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "one-again")
    assert run("export-spec", "one", "-o", "again.yml").code == 1, "an existing file is kept"


def test_a_directory_compiled_from_a_changed_spec_holds_what_was_compiled(run: Run, spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    change = ("--set", "layer_schedule[1].repeat=2")
    assert run("compile", spec, *change, "--output-dir", "one").code == 0
    (tmp_path / "back.yml").write_text(run("export-spec", "one").out, encoding="utf-8")
    # A directory can stand wherever a spec can.
    for form in ("back.yml", "one"):
        assert json.loads(run("explain", form, "--json").out)["total_layers"] == 4
    assert run("compile", "back.yml", "--output-dir", "two").code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_config_json_has_the_last_word_about_a_directory(run: Run, spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert run("compile", spec, "--output-dir", "one").code == 0
    (tmp_path / "one" / "spec.yml").write_text("model: nonsense\n", encoding="utf-8")
    (tmp_path / "back.yml").write_text(run("export-spec", "one").out, encoding="utf-8")
    assert json.loads(run("explain", "back.yml", "--json").out)["params"]["total"] == PARAMS
    config = json.loads((tmp_path / "one" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "one" / "config.json").write_text(json.dumps({**config, "vocab_size": 70}), encoding="utf-8")
    assert json.loads(run("explain", "one", "--json").out)["model"]["vocab_size"] == 70


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "llama"}, "describes no model that EulerStack compiled"),
        ({"model_type": "eulerstack", "architecture": {}}, "that this version can't read"),
        ({"model_type": "eulerstack", "architecture": {"blocks": 3}}, "that this version can't read"),
        (None, "has no config.json"),
    ],
)
def test_a_directory_without_a_spec_is_a_problem_of_three_lines(
    run: Run, tmp_path: Path, config: object, what: str
) -> None:
    (tmp_path / "model").mkdir()
    if config is not None:
        (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    outcome = run("export-spec", "model")
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3 and what in outcome.err


@pytest.mark.parametrize("damage", ["a list for a word", "an extension that is none"])
def test_what_can_not_be_read_is_a_damage_and_no_defect(run: Run, spec: Path, tmp_path: Path, damage: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = json.loads(run("compile", spec, "--print-config").out)
    if damage == "a list for a word":
        config["architecture"]["blocks"][0]["mixer"]["type"] = ["attention"]
    else:
        config["architecture"]["extensions"] = {"a": 1}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    outcome = run("explain", model)
    assert outcome.code == 1 and "that this version can't read" in outcome.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
