"""What the declaration promises: defaults that depend on each other, contradictions, an exact price."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import eulerstack as es
from eulerstack.errors import CompatibilityError
from eulerstack.plugins import Dims
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report
from eulerstack_ttt.declarations.ttt import TTT_LAYER

DIMS = Dims(
    d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, d_ff=50, vocab_size=50, max_seq_len=64, norm_eps=1e-5,
    positional="rope",
)  # fmt: skip
WORDS: list[dict[str, Any]] = [
    {},
    {"mini_batch": 1},
    {"mini_batch": 5},
    {"inner_model": {"type": "mlp"}},
    {"inner_model": {"type": "mlp", "hidden": 3}, "mini_batch": 2},
    {"inner_steps_per_token": 3},
    {"inner_optimizer": "adamw"},
    {"inner_model": {"type": "mlp", "hidden": 5}, "inner_optimizer": "adamw", "inner_steps_per_token": 2},
]


def spec(**words: Any) -> dict[str, Any]:
    template = {"mixer": {"type": "ttt_layer", "ttt": words}, "ffn": {"type": "mlp"}}
    return {
        "schema_version": 1,
        "model": {"name": "tiny", "d_model": 24, "vocab_size": 50, "max_seq_len": 64, "n_heads": 3},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"positional": "none"},
        "layer_templates": {"memory": {**template, "state": {"ssm_state": True}}},
        "layer_schedule": [{"template": "memory"}],
        "head": {"type": "causal_lm"},
    }


def resolved(**words: Any) -> dict[str, Any]:
    return dict(es.normalize_to_ir(spec(**words)).layers[0].mixer.params)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, {"inner_lr": 1.0, "mini_batch": 16, "inner_optimizer": "sgd", "inner_steps_per_token": 1}),
        ({"inner_model": {"type": "mlp"}}, {"inner_lr": 0.1, "mini_batch": 16}),
        ({"inner_optimizer": "adamw"}, {"inner_lr": 0.001, "mini_batch": 1}),
        ({"inner_steps_per_token": 2}, {"inner_lr": 1.0, "mini_batch": 1}),
        ({"inner_lr": 2, "mini_batch": 3}, {"inner_lr": 2.0, "mini_batch": 3}),
    ],
)
def test_null_takes_what_the_other_words_call_for(words: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {word: resolved(**words)[word] for word in expected} == expected


def test_the_hidden_width_follows_from_the_head() -> None:
    assert resolved(inner_model={"type": "mlp"})["inner_model"]["hidden"] == 32
    assert resolved()["inner_model"]["hidden"] is None


@pytest.mark.parametrize("words", WORDS)
def test_what_is_resolved_is_stated_by_the_printed_spec(words: dict[str, Any]) -> None:
    from eulerstack.ir.printer import to_spec

    ir = es.normalize_to_ir(spec(**words))
    assert es.normalize_to_ir(to_spec(ir)) == ir


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"inner_model": {"hidden": 8}}, "inner_model.hidden"),
        ({"inner_optimizer": "adamw", "mini_batch": 16}, "mini_batch"),
        ({"inner_steps_per_token": 2, "mini_batch": 2}, "mini_batch"),
    ],
)
def test_words_without_effect_are_contradictions(words: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(**words))
    assert [each.path for each in caught.value.diagnostics] == [f"layer_templates.memory.mixer.ttt.{path}"]


def test_asserting_a_kv_cache_is_a_contradiction() -> None:
    wrong = spec()
    wrong["layer_templates"]["memory"]["state"] = {"kv_cache": True}
    with pytest.raises(CompatibilityError):
        es.validate_v2(wrong)


@pytest.mark.parametrize("words", WORDS)
def test_parameters_are_those_of_the_module(words: dict[str, Any], params: Callable, lively_layer: Callable) -> None:
    declared = TTT_LAYER.cost(DIMS, params(**words), 2).params
    assert declared == sum(parameter.numel() for parameter in lively_layer(**words).parameters())


def test_flops_are_those_of_the_recurrence(params: Callable) -> None:
    projections = 2 * (4 * 24 * 24 + 24 * 3)
    # linear: prediction of the key, update of the matrix, prediction of the query
    assert TTT_LAYER.cost(DIMS, params(), 2).flops_per_token == projections + 3 * 3 * 2 * 8 * 8
    two = params(inner_steps_per_token=2)
    assert TTT_LAYER.cost(DIMS, two, 2).flops_per_token == projections + 3 * 5 * 2 * 8 * 8
    # mlp: prediction (2 matrices), backward (1), updates (2), prediction of the query (2)
    mlp = params(inner_model={"type": "mlp", "hidden": 5})
    assert TTT_LAYER.cost(DIMS, mlp, 2).flops_per_token == projections + 3 * 7 * 2 * 8 * 5
    assert TTT_LAYER.cost(DIMS, mlp, 2).flops_per_token_per_context == 0


@pytest.mark.parametrize(
    ("words", "words_found"),
    [
        ({}, []),
        ({"inner_lr": 0.01}, []),
        ({"inner_lr": 50}, ["inner_lr"]),
        ({"inner_lr": 0.5, "inner_optimizer": "adamw"}, ["inner_lr"]),
        ({"inner_steps_per_token": 9}, ["inner_steps_per_token"]),
        ({"mini_batch": 65}, ["mini_batch"]),
    ],
)
def test_unusual_values_are_findings(words: dict[str, Any], words_found: list[str]) -> None:
    findings = [each for each in report(es.normalize_to_ir(spec(**words))) if each.rule == "ttt_range"]
    assert [each.path.rpartition(".")[2] for each in findings] == words_found


def test_the_plugin_is_registered_as_one_of_ours() -> None:
    registry = get_registry()
    assert registry.origin(registry.get("mixer", "ttt_layer")) == ("eulerstack-ttt", "1.0.0")


def test_the_core_gives_the_package_its_own_name() -> None:
    import eulerstack.plugins.ttt as ttt
    from eulerstack_ttt.modules.ttt import TTTLayer

    assert ttt.TTT_LAYER is TTT_LAYER and ttt.TTTLayer is TTTLayer
    with pytest.raises(AttributeError):
        ttt.nothing  # noqa: B018


def test_the_core_names_the_package_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['eulerstack_ttt'] = None\n"
        "try:\n    import eulerstack.plugins.ttt\n"
        "except ImportError as error:\n    assert 'pip install eulerstack-ttt' in str(error), error\n"
        "else:\n    raise SystemExit('nothing was raised')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plugin_imports_no_torch() -> None:
    code = "import sys, eulerstack_ttt.plugin, eulerstack.plugins.ttt; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
