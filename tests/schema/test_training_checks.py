"""What contradicts what in the words for training."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("eulerstack_mixers")

import eulerstack as es  # noqa: E402
from eulerstack.errors import CompatibilityError, ValidationError  # noqa: E402
from eulerstack.schema import training_checks  # noqa: E402
from tests.ir.strategies import minimal  # noqa: E402


def refusal(**sections: Any) -> tuple[str, str, str]:
    """(path, what, fix) of the one contradiction."""
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(minimal(**sections))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.path, diagnostic.what.render(str), diagnostic.fix.render(str)


def test_mup_needs_its_base_width_and_the_base_width_mup() -> None:
    path, what, fix = refusal(training_hints={"scaling": {"parametrization": "mup"}})
    assert (path, "base_width" in fix) == ("training_hints.scaling", True)
    path, what, fix = refusal(training_hints={"scaling": {"base_width": 8}})
    assert (path, "mup" in what) == ("training_hints.scaling.base_width", True)


def test_muons_words_need_muon() -> None:
    muon = {"momentum": 0.5}
    path, what, fix = refusal(training_hints={"muon": muon})
    assert path == "training_hints.muon"
    es.validate_v2(minimal(training_hints={"muon": muon, "optimizer": "muon"}))
    es.validate_v2(minimal(training_hints={"muon": muon, "optimizer_groups": [{"optimizer": "muon"}]}))


def test_rounded_weights_need_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = {"quant_aware_training": {"enabled": True}}
    monkeypatch.setattr(training_checks, "find_spec", lambda name: None)
    path, what, fix = refusal(compatibility=enabled)
    assert path == "compatibility.quant_aware_training.enabled"
    assert fix == "pip install torchao"
    es.validate_v2(minimal(compatibility={"quant_aware_training": {"enabled": False, "dtype": "fp8"}}))
    monkeypatch.setattr(training_checks, "find_spec", lambda name: object())
    es.validate_v2(minimal(compatibility=enabled))


@pytest.mark.parametrize(
    "hints",
    [
        {"init": "glorot"},
        {"betas": [0.9]},
        {"betas": [0.9, 1.0]},
        {"lr_peak": 0},
        {"warmup_steps_ratio": 1.0},
        {"lr_floor_ratio": 1.5},
        {"optimizer": "lion"},
        {"optimizer_groups": [{"role": "hiden"}]},
        {"optimizer_groups": [{"optimizer": "hybrid"}]},
        {"muon": {"ns_steps": 0}},
        {"scaling": {"parametrization": "mup", "base_width": 0}},
    ],
)
def test_values_out_of_range_are_refused(hints: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        es.validate_v2(minimal(training_hints=hints))
