"""`diff` tells what differs in the architecture and what that costs, and says it by its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import eulerstack as es
from eulerstack.ir.diff import MISSING, FieldChange, diff

from .conftest import SPEC, Run


def differences(spec: Path, *assignments: str) -> tuple[set[str], list[tuple[str, object, object]]]:
    """The lines of what differs after the assignments, and the runs of stages."""
    before, after = (es.normalize_to_ir(es.load(spec, each)) for each in ((), assignments))
    found = diff(before, after)
    lines = {f"{each.path}: {each.before} -> {each.after}" for each in found.fields}
    return lines, [(each.kind, each.before, each.after) for each in found.stages]


def test_the_text_makes_no_difference(run: Run, spec: Path, tmp_path: Path) -> None:
    text = SPEC.replace("global", "far").replace("# A tiny model: for tests.\n", "let: { width: 4 }\n")
    text = text.replace("n_heads: 4", 'n_heads: "${let.width}"').replace("attention: {}", "attention: { window: null }")
    (tmp_path / "other.yml").write_text(text.replace("repeat: 2 }", "repeat: 1 }\n  - { template: far }"))
    outcome = run("diff", spec, "other.yml")
    assert outcome == (0, "The same architecture.\n", "")
    assert json.loads(run("diff", spec, "other.yml", "--json").out)["same"] is True


def test_a_difference_is_told_with_its_price_and_exit_code_3(run: Run, spec: Path) -> None:
    outcome = run("diff", spec, "--set", "layer_templates.global.mixer.attention.window=8")
    assert outcome.code == 3 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[:2] == ["layers 0–1:", "  mixer.window: null → 8"]
    # 64 bytes a token and layer: two layers of 32 tokens and one of 7, then three of 7.
    cache = next(line.split() for line in lines if line.startswith("Cache"))
    assert cache == ["Cache", "4.438", "KiB", "1.312", "KiB", "-70.4%"]
    assert max(map(len, lines)) <= 80
    assert run("diff", spec, "nowhere.yml").code == 1
    assert run("diff", spec).code == 2 == run("diff").code


def test_lists_that_begin_alike_are_told_by_their_lengths(run: Run, tmp_path: Path) -> None:
    start, _, end = SPEC.partition("  - { template: global, repeat: 2 }\n")
    for kind in ("discrete", "ode_rk4"):
        stage = f"  - integrator: {{ type: {kind}, steps: 3, body: global, output: token }}\n"
        (tmp_path / f"{kind}.yml").write_text(start + stage + end)
    lines = run("diff", "discrete.yml", "ode_rk4.yml").out.splitlines()
    assert lines[1:3] == ['  integrator.type: "discrete" → "ode_rk4"', "  layers: a list of 3 → a list of 1"]


def test_layers_that_differ_alike_share_a_title_wherever_they_stand(spec: Path) -> None:
    change = "layer_schedule=[{template: local, repeat: 2}, {template: global}]"
    before, after = (es.normalize_to_ir(es.load(spec, each)) for each in ((), [change]))
    found = diff(before, after)
    assert not found.fields
    assert [(each.kind, each.before, each.after) for each in found.stages] == [
        ("changed", ((0, 1),), ((0, 1),)),
        ("changed", ((2, 2),), ((2, 2),)),
    ]
    assert FieldChange("ffn.type", "gated_mlp", "mlp") in found.stages[0].fields
    assert FieldChange("mixer.window", None, 8) in found.stages[0].fields
    assert all("activation" not in each.path or each.before for each in found.stages[0].fields)


@pytest.mark.parametrize(
    ("change", "fields", "stages"),
    [
        ("layer_schedule[0].repeat=4", set(), [("added", (), ((2, 3),))]),
        ("layer_schedule[0].repeat=1", set(), [("removed", ((1, 1),), ())]),
        ("model.vocab_size=70", {"model.vocab_size: 64 -> 70"}, []),
        ("head.logit_softcap=null", {"head.logit_softcap: 30.0 -> None"}, []),
        ("training_hints.seed=3", {"training_hints.seed: 0 -> 3"}, []),
        ("vendor.acme.x=3", {"extensions.vendor.acme.x: MISSING -> 3"}, []),
    ],
)
def test_what_changes_is_what_is_told(
    spec: Path, change: str, fields: set[str], stages: list[tuple[str, object, object]]
) -> None:
    assert differences(spec, change) == (fields, stages)


def test_added_layers_are_told_by_what_they_are_made_of(spec: Path) -> None:
    before, after = (es.normalize_to_ir(es.load(spec, each)) for each in ((), ["layer_schedule[0].repeat=4"]))
    (added,) = diff(before, after).stages
    assert added.fields[:2] == (FieldChange("mixer", MISSING, "attention"), FieldChange("ffn", MISSING, "gated_mlp"))
    (removed,) = diff(after, before).stages
    assert removed.fields[0] == FieldChange("mixer", "attention", MISSING)


def test_prices_are_compared_at_a_context_that_both_can_take(run: Run, spec: Path) -> None:
    data = json.loads(run("diff", spec, "--set", "model.max_seq_len=16", "--json").out)
    assert data["prices"]["context"] == 16
    assert data["prices"]["before"] == data["prices"]["after"]
    assert data["fields"] == [{"path": "model.max_seq_len", "before": 32, "after": 16}]
