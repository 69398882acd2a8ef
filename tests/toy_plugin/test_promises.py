"""A compile holds a third party's declaration to what was built, and says whose it is."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import eulerstack as es
from eulerstack.errors import CompatibilityError
from eulerstack.plugins import Cost, hookimpl
from eulerstack.plugins.manager import PluginSource, Registry, get_registry, installed_sources, reset_registry

pytestmark = pytest.mark.usefixtures("installed")
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a price that is none of the model's": (
        {"cost": lambda *asked: Cost(params=7, flops_per_token=1)},
        r"^the model has [\d,]+ parameters, not the [\d,]+ of its price: .* vendor.late.ema of late-words 2.0 ",
    ),
    "a module that is not there": ({"module": "nowhere.at.all:ToyEMA"}, "the class of vendor.late.ema, nowhere.at.all"),
    "a class that is not there": (
        {"module": "eulerstack_toy.modules.ema:Gone"},
        "the class of vendor.late.ema, .*Gone",
    ),
}


SPEC: dict[str, Any] = {
    "schema_version": 1,
    "model": {"name": "late", "d_model": 32, "vocab_size": 64, "max_seq_len": 32, "n_heads": 2, "dtype": "float32"},
    "tokenizer_contract": {"type": "hf"},
    "embedding": {"type": "learned", "positional": "none"},
    "layer_templates": {
        "a": {"mixer": {"type": "vendor.late.ema"}, "ffn": {"type": "mlp"}, "state": {"ssm_state": True}}
    },
    "layer_schedule": [{"template": "a"}],
    "head": {"type": "causal_lm"},
}


@pytest.fixture
def install() -> Iterator[Callable[..., None]]:
    """Installs the toy package's mixer once more, changed, as the package late-words."""
    before = get_registry()

    def installed(**changed: Any) -> None:
        mixer = replace(before.get("mixer", "vendor.toy.ema"), name="vendor.late.ema", **changed)
        module = types.ModuleType("late_words")
        module.eulerstack_mixers = hookimpl(lambda: [mixer])  # type: ignore[attr-defined]
        ours = [each for each in installed_sources() if each.own]
        reset_registry(Registry([*ours, PluginSource("words", "late-words", "2.0", lambda: module)]))

    yield installed
    reset_registry(before)


@pytest.mark.parametrize("case", BROKEN)
def test_what_a_strangers_declaration_does_not_keep_is_refused_by_name(
    case: str, install: Callable[..., None], tmp_path: Path
) -> None:
    changed, said = BROKEN[case]
    install(**changed)
    ir = es.normalize_to_ir(SPEC)
    with pytest.raises(CompatibilityError) as caught:
        es.compile_to_directory(ir, tmp_path / "model")
    (diagnostic,) = caught.value.diagnostics
    assert re.search(said, diagnostic.what.render(str))
    assert not (tmp_path / "model").exists()


def test_what_keeps_its_price_is_written(install: Callable[..., None], tmp_path: Path) -> None:
    install()
    ir = es.normalize_to_ir(SPEC)
    written = es.compile_to_directory(ir, tmp_path / "model")
    stored = load_file(written / "model.safetensors")
    assert es.count_parameters(ir) == sum(each.numel() for each in stored.values())
