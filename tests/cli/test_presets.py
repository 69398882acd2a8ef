"""`presets list` and `presets show`: filters, the picture, and the same facts for people and for programs."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

from eulerstack import i18n
from eulerstack.cli import terminal
from eulerstack.cli.preset_picture import folded, in_language, taught
from eulerstack.cli.terminal import cells
from eulerstack.i18n import LANGUAGES
from eulerstack.plugins import PresetFolder, hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import PluginSource, installed_sources, reset_registry
from eulerstack.presets import find, presets
from tests.cli.conftest import PARAMS, Run


def names(run: Run, *filters: str) -> list[str]:
    """The presets that a list with these filters holds."""
    outcome = run("presets", "list", "--json", *filters)
    assert outcome.code == 0 and outcome.err == ""
    return [each["name"] for each in json.loads(outcome.out)]


def test_the_presets_are_listed_one_a_line_with_size_tier_level_mixers_and_summary(run: Run) -> None:
    lines = run("presets", "list").out.splitlines()
    assert len(lines) == len(presets()) + 1
    row = next(line for line in lines if line.startswith("llm_0p1b_simple "))
    assert row.split(maxsplit=5)[1:5] == ["~100.09M", "1", "llm", "attention"] and "pure attention" in row


def test_the_presets_are_listed_for_programs(run: Run) -> None:
    data = {each["name"]: each for each in json.loads(run("presets", "list", "--json").out)}
    assert set(data) == {preset.name for preset in presets()}
    assert all(each["params"] > 0 and each["summary"] and Path(each["path"]).is_file() for each in data.values())
    jamba = data["arch_advanced_jamba"]
    assert (jamba["tier"], jamba["level"], jamba["mixers"]) == (2, "advanced", ["mamba", "attention"])
    assert (jamba["layers"], jamba["d_model"], jamba["max_seq_len"]) == (20, 2048, 16384)
    assert jamba["arxiv"] == ["2403.19887", "2408.12570"] and jamba["years"] == [2024]
    assert data["arch_expert_mixtral_moe"]["active_params"] < data["arch_expert_mixtral_moe"]["params"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("--level", "beginner"), ["arch_beginner_gpt2", "arch_beginner_llama"]),
        (("--tier", "3"), ["arch_expert_dual_stream", "arch_expert_reasoning_r1", "arch_expert_titans_memory"]),
        (("--mixer", "mamba", "--mixer", "branched"), ["arch_expert_kitchen_sink"]),
        (("--paper", "retentive 2023"), ["arch_advanced_retnet"]),
        (("--paper", "2404.02258"), ["arch_advanced_mod"]),
        (("--min-params", "16e9", "--tier", "1"), ["llm_16b_mistral", "llm_16b_simple"]),
        (("--max-params", ".1b", "--level", "llm"), ["llm_0p1b_jamba"]),
        (("--min-params", "900M", "--max-params", "1B", "--tier", "2"), ["arch_advanced_samba"]),
        (("--paper", "no such words"), []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_filters_leave_exactly_what_fits_all_of_them(run: Run, filters: tuple[str, ...], expected: list[str]) -> None:
    assert names(run, *filters) == expected


def test_a_list_without_presets_says_so_in_the_language(run: Run) -> None:
    said = {run("presets", "list", "--paper", "nobody", lang=language).out for language in LANGUAGES}
    assert len(said) == len(LANGUAGES) and all("eulerstack presets list" in each for each in said)


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--level", "expret", "use expert"),
        ("--level", "guru", "use one of: beginner"),
        ("--mixer", "manba", "use mamba"),
        ("--tier", "4", "presets list --help"),
        ("--min-params", "big", "use --min-params 1.5B"),
        ("--max-params", "-3", "use --max-params 1.5B"),
    ],
)
def test_a_filter_that_can_fit_nothing_is_refused_with_what_to_type(
    run: Run, option: str, value: str, hint: str
) -> None:
    outcome = run("presets", "list", option, value)
    assert outcome.code == 2 and outcome.out == ""
    head, fix, see = outcome.err.splitlines()
    assert option in head and hint in fix and see == "See: reference/cli.md#presets"


def test_a_preset_is_explained_by_its_header_a_picture_and_its_figures(run: Run) -> None:
    out = run("presets", "show", "arch_advanced_mod").out
    for part in ("Mixture-of-Depths:", "Teaches", "Raposo et al. 2024", "2, recent hybrids", "advanced"):
        assert part in out
    assert "┌ 0  attention · gated_mlp" in out and "depth_gating 0.125" in out and "11 times, up to layer 21" in out
    assert "1.10B (1,100,070,912)" in out and "676.14M" in out
    assert "eulerstack presets show arch_advanced_mod --yaml" in out


@pytest.mark.parametrize(("language", "between"), [("en", ". "), ("ko", ". "), ("zh", "。"), ("ja", "。")])
def test_sentences_are_joined_as_their_script_joins_them(language: str, between: str) -> None:
    headers = [preset.header for preset in presets() if preset.header.touched]
    assert headers
    i18n.activate(language)
    for header in headers:
        lesson = in_language(header.lesson)
        second = taught(header).removeprefix(lesson)
        assert f"{lesson[-1:]}{second}".startswith(between) and not second.startswith("  ")
        assert "。 " not in taught(header)
    i18n.activate(None)


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_a_picture_shows_every_parameter_once(run: Run, preset: Any) -> None:
    lines = run("presets", "show", preset.name).out.splitlines()
    shown, block = 0.0, []
    for line in lines[lines.index("") + 1 :]:
        words = line.split()
        drawn = any(mark in line for mark in "▏▎▍▌▋▊▉█")
        number = words[-1] if drawn else ""
        value = float(number.rstrip("KMB")) * {"K": 1e3, "M": 1e6, "B": 1e9}.get(number[-1:], 1) if drawn else 0.0
        if line.startswith("  └"):
            shown, block = shown + sum(block) * int(words[1]), []
        elif line[2:3] in ("┌", "│"):
            block.append(value)
        else:
            shown += value
    total = json.loads(run("presets", "show", preset.name, "--json").out)["params"]["total"]
    assert shown == pytest.approx(total, rel=0.01) and not block


def test_patterns_are_folded_from_the_start_the_longest_stretch_first() -> None:
    assert list(folded("aabaabaab")) == [(3, 3)]
    assert list(folded("aaaab")) == [(4, 1), (1, 1)]
    assert list(folded("xababy")) == [(1, 1), (2, 2), (1, 1)]
    assert list(folded("")) == []


@pytest.mark.parametrize("form", [("llm_0p1b_simple",), ("--preset", "llm_0p1b_simple")])
def test_a_presets_file_is_printed_as_it_is_written(run: Run, form: tuple[str, ...]) -> None:
    text = find("llm_0p1b_simple").read_text(encoding="utf-8")
    assert run("presets", "show", *form, "--yaml").out == text


def test_a_spec_without_a_header_is_shown_too_and_summarised_for_programs(run: Run, spec: Path) -> None:
    out = run("presets", "show", spec).out
    assert "A tiny model: for tests." in out and "Source" not in out and "Tier" not in out
    data = json.loads(run("presets", "show", spec, "--json").out)
    assert data["params"]["total"] == PARAMS and data["summary"] == "A tiny model: for tests." and "tier" not in data


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_what_a_preset_is_and_teaches_is_said_in_the_language(run: Run, language: str) -> None:
    english = run("presets", "show", "arch_expert_deepseek_moe").out
    assert "Of 1.98B parameters a token touches 522M." in english and "many small experts" in english
    said = run("presets", "show", "arch_expert_deepseek_moe", lang=language).out
    assert "1.98B" in said and "522M" in said and "Dai et al. 2024" in said
    assert "many small experts" not in said and "a token" not in said


def test_an_unknown_preset_is_met_with_the_nearest(run: Run) -> None:
    outcome = run("presets", "show", "llm_0p1b_sample")
    assert outcome.code == 1 and "llm_0p1b_simple" in outcome.err


def test_a_file_and_data_are_not_shown_at_once(run: Run) -> None:
    outcome = run("presets", "show", "llm_0p1b_simple", "--yaml", "--json")
    assert outcome.code == 2 and "--yaml" in outcome.err.splitlines()[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_that_a_person_sees_is_wider_than_the_terminal(
    run: Run, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(terminal, "is_terminal", lambda stream=None: True)
    monkeypatch.setattr("eulerstack.cli.presets.is_terminal", lambda stream=None: True)
    lines = run("presets", "list", "--level", "advanced", lang=language).out.splitlines()
    assert len(lines) >= 10
    for name in ("arch_expert_kitchen_sink", "arch_expert_frontier_full_moe_mini"):
        lines += run("presets", "show", name, lang=language).out.splitlines()
    assert [line for line in lines if cells(line) > 80] == []


def test_a_preset_that_can_not_be_read_is_listed_without_figures(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.yml").write_bytes(b"\xff\xfe# not a text")
    (tmp_path / "unfit.yml").write_text("# Unfit: no spec.\nschema_version: 7\n", encoding="utf-8")
    module = types.ModuleType("folder")
    module.eulerstack_presets = hookimpl(lambda: [PresetFolder(str(tmp_path))])  # type: ignore[attr-defined]
    sources = [*installed_sources(), PluginSource("folder", "acme", "1", lambda: module)]
    monkeypatch.setattr(manager_module, "installed_sources", lambda: sources)
    reset_registry()
    try:
        data = {each["name"]: each for each in json.loads(run("presets", "list", "--json").out)}
        assert data["broken"]["params"] is None and data["broken"]["summary"] == ""
        assert data["unfit"]["params"] is None and data["unfit"]["summary"] == "Unfit: no spec."
        assert "unfit" not in names(run, "--min-params", "1") and "unfit" not in names(run, "--tier", "1")
        assert run("presets", "list").code == 0
    finally:
        reset_registry()
