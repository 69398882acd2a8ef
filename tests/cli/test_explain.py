"""`eulerstack explain` shows the model and its price, readable at 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eulerstack.cli.terminal import cells
from eulerstack.i18n import LANGUAGES
from tests.cli.conftest import PARAMS, SPEC, Run


def test_the_model_is_told_in_the_promised_lines(run: Run, spec: Path) -> None:
    out = run("explain", "--preset", spec).out
    for line in (
        "Model: tiny",
        "Dims: d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=128",
        "Vocab: 64, max seq: 32, dtype: bfloat16",
        "Positional: rope",
        "Layer templates:",
        "    mixer: attention {window: 8}",
        "    ffn: mlp {bias: true}",
        "    norm: rmsnorm, pre",
        "    residual: sequential",
        "Layer schedule:",
        "  global x2, local x1 {residual: {scaling: 0.5}}",
        "Total layers: 3",
        "Head: causal_lm, tie_weights=True {logit_softcap: 30}",
        "Compile target: huggingface",
        f"Estimated params: {PARAMS / 1000:.1f}K ({PARAMS:,})",
        f"Target params: 30.0K (30,000) (ratio: {PARAMS / 30000:.1%})",
    ):
        assert line in out.splitlines(), line


def test_training_hints_number_types_and_columns_are_shown(run: Run, spec: Path) -> None:
    spec.write_text(
        spec.read_text(encoding="utf-8")
        + """
training_hints: { optimizer: hybrid, lr_peak: 0.01, scaling: { parametrization: mup, base_width: 16 } }
compatibility: { dtype_policy: layered_safe }
tissue:
  columns:
    - { name: binding, templates: [global], role: global_binding }
    - { name: near, templates: [local] }
  connectivity: feedforward
""",
        encoding="utf-8",
    )
    lines = run("explain", spec).out.splitlines()
    for line in (
        "Compatibility: {dtype_policy: layered_safe}",
        "Columns: feedforward",
        "  binding: global_binding; layers 0–1; → near",
        "  near: layers 2",
    ):
        assert line in lines, line
    assert any(line.startswith("Training hints: {lr_peak: 0.01, optimizer: hybrid") for line in lines)
    data = json.loads(run("explain", spec, "--json").out)
    norms = 7 * 32
    assert data["weight_bytes"] == 2 * (PARAMS - norms) + 4 * norms
    assert data["tissue"]["edges"] == [[0, 1]]
    assert data["training"]["scaling"] == {"parametrization": "mup", "base_width": 16}


def test_phases_are_shown_with_what_they_hold_at_once(run: Run, spec: Path) -> None:
    spec.write_text(
        spec.read_text(encoding="utf-8")
        + """
execution_modes:
  - { name: think, max_tokens: 16, kv_share: false, loss_weight: 0.5, visible_to_user: false }
  - { name: answer, max_tokens: 9 }
transition: { type: special_token, token: <think_end> }
""",
        encoding="utf-8",
    )
    lines = run("explain", spec).out.splitlines()
    keys_and_values = 2 * 2 * 8 * 2
    for line in (
        "Phases: special_token <think_end>",
        "  think: 16 {kv_share: false, loss_weight: 0.5, visible_to_user: false}",
        "  answer: 9",
        "Longest context of the phases: 16 tokens beside the prompt, cache 2.438 KiB",
    ):
        assert line in lines, line
    phases = json.loads(run("explain", spec, "--json").out)["phases"]
    assert (phases["total_budget"], phases["longest_context"]) == (25, 16)
    assert phases["cache_bytes"] == (2 * 16 + 7) * keys_and_values


def test_equal_layers_in_a_row_share_a_line_of_the_table(run: Run, spec: Path) -> None:
    rows = run("explain", spec).out.splitlines()[-2:]
    assert rows[0].startswith("0–1") and "global" in rows[0]
    assert rows[1].startswith("2 ") and "local" in rows[1]


def test_json_gives_sizes_costs_and_layers(run: Run, spec: Path) -> None:
    data = json.loads(run("explain", spec, "--json").out)
    assert data["params"] == {"total": PARAMS, "active": PARAMS, "embedding": 64 * 32, "target": 30000}
    assert data["total_layers"] == 3
    assert [(group["first"], group["last"]) for group in data["layers"]] == [(0, 1), (2, 2)]
    keys_and_values = 2 * 2 * 8 * 2
    assert data["cache_bytes"]["per_token"] == 3 * keys_and_values
    assert data["cache_bytes"]["at_context"] == (2 * 32 + 7) * keys_and_values
    layers = sum(group["params"] * (group["last"] - group["first"] + 1) for group in data["layers"])
    assert layers + 64 * 32 + 32 == PARAMS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("preset", ["arch_intermediate_gemma2", "llm_16b_mistral"])
def test_no_line_is_wider_than_the_terminal_in_any_language(run: Run, language: str, preset: str) -> None:
    out = run("explain", preset, lang=language).out
    assert [line for line in out.splitlines() if cells(line) > 80] == []


def test_a_schedule_of_very_many_runs_is_cut_and_says_so(run: Run, spec: Path) -> None:
    entries = "".join("  - { template: global }\n  - { template: local }\n" for _ in range(300))
    head, tail = SPEC.split("layer_schedule:\n")
    spec.write_text(head + "layer_schedule:\n" + entries + tail[tail.index("head:") :], encoding="utf-8")
    out = run("explain", spec).out
    assert "Rows left out: 400" in out.splitlines()[-1]


def test_branches_and_evaluations_are_told(run: Run, spec: Path) -> None:
    branched = (
        "{type: branched, branched: {branches: {b: {type: retnet}, a: {type: attention, attention: {window: 4}}}, "
        "selector: {type: top_k}}}"
    )
    stages = "layer_schedule:\n  - integrator: {type: ode_rk4, steps: 2, body: both}\n"
    templates = f"  both: {{mixer: {branched}, ffn: {{type: mlp}}}}\n"
    head, tail = SPEC.split("layer_schedule:\n")
    spec.write_text(head + templates + stages + tail[tail.index("head:") :], encoding="utf-8")
    lines = run("explain", spec).out.splitlines()
    assert "mixer: branched {branches: {a: attention {window: 4}, b: retnet}," in " ".join(map(str.strip, lines))
    assert "  ode_rk4 {steps: 2}: both" in lines
    assert lines[-1].startswith("0 ") and "both x8 (integrator)" in lines[-1]


def test_costs_can_be_asked_for_at_any_context_and_batch(run: Run, spec: Path) -> None:
    outcome = run("explain", spec, "--context", "16", "--batch", "3", "--json")
    data = json.loads(outcome.out)
    keys_and_values = 2 * 2 * 8 * 2
    assert data["cache_bytes"]["at_context"] == 3 * (2 * 16 + 7) * keys_and_values
    assert (
        sum(each["cache_bytes_at_context"] * (each["last"] + 1 - each["first"]) for each in data["layers"])
        == (data["cache_bytes"]["at_context"])
    )
    assert data["flops_per_token"] < json.loads(run("explain", spec, "--json").out)["flops_per_token"]
    assert "at 3 times 16 tokens" in run("explain", spec, "--context", "16", "--batch", "3").out
    assert run("explain", spec, "--context", "0").code == 2


def test_a_training_step_is_priced(run: Run, spec: Path) -> None:
    data = json.loads(run("explain", spec, "--json").out)
    price = data["training_cost"]
    assert price["flops_per_token"] == 3 * data["flops_per_prompt_token"]
    assert price["weight_bytes"] == price["gradient_bytes"] == 2 * PARAMS
    assert price["optimizer_bytes"] == [4 * PARAMS] * 2 and price["total_bytes"] == [8 * PARAMS] * 2
    muon = json.loads(run("explain", spec, "--set", "training_hints.optimizer=muon", "--json").out)["training_cost"]
    # Two norms a layer and one after them are never Muon's.
    norms = (2 * data["total_layers"] + 1) * data["model"]["d_model"]
    assert muon["optimizer_bytes"] == [2 * (PARAMS + norms), 4 * PARAMS]
