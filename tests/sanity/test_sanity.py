"""A short training run: what it reports of healthy and of sick models, of every head, of experts and hybrids."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import eulerstack as es
from eulerstack.data.packing import Packer
from eulerstack.errors import CompatibilityError
from eulerstack.ir.printer import print_ir
from eulerstack.sanity import Report, check, plot
from eulerstack.sanity.command import main
from tests.model.specs import VOCAB, changed, tiny_spec
from tests.model.variants import VARIANTS
from tests.sanity.test_report import report as report_of

HINTS = {"training_hints.lr_peak": 0.01}


def blocks(count: int = 64) -> datasets.Dataset:
    """Blocks that count upwards, which every model learns soon; documents end in the middle of them."""
    texts = ([(start + step) % VOCAB for step in range(start % 13 + 5)] for start in range(count))
    return dataset_of(list(Packer(16).blocks_of(texts)))


def dataset_of(examples: list[dict[str, list[int]]]) -> datasets.Dataset:
    """Blocks as a dataset."""
    return datasets.Dataset.from_dict({key: [example[key] for example in examples] for key in examples[0]})


def checked(spec: dict[str, Any], steps: int = 10, **kwargs: Any) -> Report:
    """The report of a spec's model."""
    ir = es.normalize_to_ir(changed(spec, HINTS))
    return check(es.compile_to_hf_model(ir, seed=0).float(), blocks(), name="m", steps=steps, **kwargs)


@pytest.mark.parametrize("name", ["mtp", "moe_hybrid", "mamba_and_attention"])
def test_a_healthy_model_learns_and_every_parameter_takes_part(name: str) -> None:
    report = checked(VARIANTS[name])
    assert report.falls and report.dead_parameters == ()
    assert report.first_loss == pytest.approx(report.losses[0]) and len(report.gradient_norms) == 10
    assert all(norm > 0 for norm in report.gradient_norms) and report.tokens_per_second > 0
    assert bool(report.experts) == (name == "moe_hybrid")


def test_the_same_seed_gives_the_same_losses_and_another_another() -> None:
    spec = tiny_spec()
    assert checked(spec, 3).losses == checked(spec, 3).losses != checked(spec, 3, seed=1).losses


def test_parameters_that_get_no_gradient_are_named() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), HINTS)), seed=0).float()
    layer = model.model.layers[1].ffn
    whole = layer.forward
    layer.forward = lambda hidden_states: whole(hidden_states).detach()
    model.lm_head.weight.requires_grad_(False)
    report = check(model, blocks(), steps=3)
    # Neither what is frozen on purpose.
    parts = ("ffn.gate_proj", "ffn.up_proj", "ffn.down_proj", "ffn_norm")
    assert set(report.dead_parameters) == {f"model.layers.1.{part}.weight" for part in parts}


def test_idle_experts_and_the_busiest_one_are_counted() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(changed(VARIANTS["moe"], HINTS)), seed=0).float()
    name, router = next((name, each) for name, each in model.named_modules() if name.endswith(".router"))

    def first_always(module: Any, inputs: Any, output: Any) -> Any:
        logits, weights, chosen = output
        return logits, weights, torch.arange(chosen.shape[-1]).expand_as(chosen)

    router.register_forward_hook(first_always)
    report = check(model, blocks(), steps=4)
    load = next(load for load in report.experts if f"{load.module}.router" == name)
    assert load.idle == tuple(range(router.top_k, router.n_experts))
    assert load.busiest == pytest.approx(router.n_experts / router.top_k)


def test_a_loss_that_becomes_infinite_is_seen() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(tiny_spec()), seed=0).float()
    with torch.no_grad():
        model.model.norm.weight[0] = math.inf
    report = check(model, blocks(), steps=3)
    assert not report.is_finite and not report.falls


def test_data_that_does_not_fit_is_refused() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(tiny_spec()), seed=0).float()
    strange = dataset_of(list(Packer(16).blocks_of([[VOCAB] * 16])))
    for data, message in (
        (strange, "vocab_size"),
        (blocks().remove_columns("labels"), "labels"),
        (dataset_of(list(Packer(4096).blocks_of([[1] * 4096]))), "max_seq_len"),
    ):
        with pytest.raises(CompatibilityError, match=message):
            check(model, data, steps=3)


def test_the_command_compares_specs_draws_them_and_fails_for_one_that_does_not_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks().save_to_disk("data")
    for name in ("plain", "mtp"):
        (tmp_path / f"{name}.yml").write_text(print_ir(es.normalize_to_ir(VARIANTS[name])), encoding="utf-8")
    command = ["--data", "data", "--lang", "en", "--preset", "plain.yml", "--set", "training_hints.lr_peak=0.01"]
    capsys.readouterr()
    assert main([*command, "--preset", "mtp.yml", "--steps", "6", "--plot", "s.svg"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("yes") == 2 and "Picture saved: s.svg" in shown
    picture = (tmp_path / "s.svg").read_text(encoding="utf-8")
    assert "gradient norm" in picture and picture.startswith("<?xml")
    assert main([*command, "--json", "--steps", "4", "--set", "training_hints.lr_peak=1e-12"]) == 1
    seen = capsys.readouterr()
    (data,) = json.loads(seen.out)
    assert not data["falls"] and len(data["losses"]) == 4 and len(seen.err.splitlines()) == 3
    for wrong, code in ((["--plot", "a.xyz"], 2), (["--plot", "s.svg"], 1), (["--steps", "2"], 2)):
        assert main([*command, *wrong]) == code
    assert main(["--preset", "plain.yml", "--data", "none"]) == 1
    assert "none" in capsys.readouterr().err


def test_the_same_reports_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot([report_of([3.0, 2.0, 1.5]), report_of([3.0, 2.5, math.nan])], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
