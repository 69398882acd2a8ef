"""What the declarations promise: defaults that depend on each other, contradictions, an exact price."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import eulerstack as es
from eulerstack.errors import CompatibilityError
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report


def spec(words: dict[str, Any]) -> dict[str, Any]:
    template = {"mixer": {"type": "attention"}, "ffn": {"type": "mlp"}}
    return {
        "schema_version": 1,
        "model": {"name": "tiny", "d_model": 24, "vocab_size": 50, "max_seq_len": 64, "n_heads": 3},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"positional": "none"},
        "layer_templates": {"one": {**template, "memory": words}},
        "layer_schedule": [{"template": "one"}],
        "head": {"type": "causal_lm"},
    }


def resolved(words: dict[str, Any]) -> dict[str, Any]:
    memory = es.normalize_to_ir(spec(words)).layers[0].memory
    assert memory is not None
    return dict(memory.params)


def test_null_takes_what_the_other_words_call_for() -> None:
    assert resolved({"type": "neural_memory"}) == {
        "update_at_inference": True, "persistence": "session", "inner_lr": 0.001, "momentum": 0.9, "forget": 0.01,
        "depth": 2, "mini_batch": 16, "hidden": 24,
    }  # fmt: skip
    still = resolved({"type": "neural_memory", "update_at_inference": False, "depth": 1})
    assert {word for word, value in still.items() if value is None} == {
        "persistence", "inner_lr", "momentum", "forget", "mini_batch", "hidden",
    }  # fmt: skip
    assert resolved({"type": "retrieval", "persistence": "persistent"}) == {
        "update_at_inference": True, "persistence": "persistent", "hidden": 24, "slots": 1024, "top_k": 32,
    }  # fmt: skip


def test_the_seeds_spelling_is_read() -> None:
    words = {
        "type": "neural_memory", "update_at_inference": True, "params": {"hidden": 2048}, "inner_lr": 0.001,
        "persistence": "session",
    }  # fmt: skip
    assert resolved(words)["hidden"] == 2048


def test_what_is_resolved_is_stated_by_the_printed_spec(kind: str, tools: Any) -> None:
    from eulerstack.ir.printer import from_data, to_data, to_spec

    ir = es.normalize_to_ir(spec(tools.KINDS[kind]))
    assert es.normalize_to_ir(to_spec(ir)) == ir
    assert from_data(json.loads(json.dumps(to_data(ir)))) == ir


def test_layers_that_differ_in_their_memory_are_templates_of_their_own() -> None:
    from eulerstack.ir.printer import to_spec

    both = spec({"type": "associative"})
    plain = {word: value for word, value in both["layer_templates"]["one"].items() if word != "memory"}
    both["layer_templates"]["plain"] = plain
    both["layer_schedule"] = [{"template": "one"}, {"template": "plain"}, {"template": "one"}]
    ir = es.normalize_to_ir(both)
    assert [layer.memory is None for layer in ir.layers] == [False, True, False]
    assert es.normalize_to_ir(to_spec(ir)) == ir


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"type": "neural_memory", "depth": 1, "params": {"hidden": 8}}, "params.hidden"),
        ({"type": "neural_memory", "update_at_inference": False, "inner_lr": 0.1}, "inner_lr"),
        ({"type": "neural_memory", "update_at_inference": False, "momentum": 0.5}, "momentum"),
        ({"type": "neural_memory", "update_at_inference": False, "forget": 0}, "forget"),
        ({"type": "neural_memory", "update_at_inference": False, "mini_batch": 4}, "mini_batch"),
        ({"type": "neural_memory", "update_at_inference": False, "persistence": "session"}, "persistence"),
        ({"type": "associative", "update_at_inference": False}, "update_at_inference"),
        ({"type": "retrieval", "update_at_inference": False}, "update_at_inference"),
        ({"type": "associative", "params": {"hidden": 10}}, "params.hidden"),
        ({"type": "retrieval", "params": {"slots": 4, "top_k": 5}}, "params.top_k"),
    ],
)
def test_words_without_effect_or_sense_are_contradictions(words: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(words))
    assert [each.path for each in caught.value.diagnostics] == [f"layer_templates.one.memory.{path}"]


def test_parameters_are_those_of_the_module(kind: str, tools: Any) -> None:
    words = tools.KINDS[kind]
    declared = tools.DECLARED[words["type"]].cost(tools.DIMS, tools.complete_params(words), 2).params
    assert declared == sum(parameter.numel() for parameter in tools.lively(kind).parameters())


def test_flops_are_those_of_the_recurrence(tools: Any) -> None:
    neural = tools.complete_params(tools.KINDS["neural"])
    # predict, gradient (without the first layer's input), update, read
    network = 2 * 24 * 10
    expected = 2 * (4 * 24 * 24 + 3 * 24) + 2 * network + 2 * 10 * 24 + 2 * network + 2 * network
    assert tools.DECLARED["neural_memory"].cost(tools.DIMS, neural, 2).flops_per_token == expected
    matrix = tools.complete_params(tools.KINDS["associative"])
    expected = 2 * (2 * 24 * 15 + 2 * 24 * 24 + 6 * 24) + 3 * 2 * 15 * 8
    assert tools.DECLARED["associative"].cost(tools.DIMS, matrix, 2).flops_per_token == expected
    ir = es.normalize_to_ir(spec(tools.KINDS["retrieval"]))
    from eulerstack.compiler.cost import ModelCost, model_cost
    from eulerstack.plugins import Cost

    alone = ModelCost(0, Cost(), (model_cost(ir).layers[0].__class__(Cost(), Cost(), (), Cost(), (),
                      model_cost(ir).layers[0].memory),), 0, Cost())  # fmt: skip
    # The first token reads nothing, the fourth three others, the twentieth the seven that are stored.
    for context, seen in ((1, 0), (4, 3), (20, 7)):
        assert alone.flops_per_token(context) == 2 * 4 * 24 * 15 + 4 * 15 * seen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"type": "neural_memory"}, []),
        ({"type": "neural_memory", "inner_lr": 0.5}, ["inner_lr"]),
        ({"type": "neural_memory", "inner_lr": 0.1, "momentum": 0.95}, ["inner_lr"]),
        ({"type": "neural_memory", "depth": 5}, ["depth"]),
        ({"type": "neural_memory", "mini_batch": 65}, ["mini_batch"]),
        ({"type": "neural_memory", "params": {"hidden": 2**20}}, ["params.hidden"]),
        ({"type": "associative", "inner_lr": 2.5}, ["inner_lr"]),
        ({"type": "retrieval", "params": {"slots": 65}}, ["params.slots"]),
        ({"type": "retrieval", "params": {"slots": 64, "top_k": 32}}, []),
    ],
)
def test_unusual_values_are_findings(words: dict[str, Any], expected: list[str]) -> None:
    findings = [each for each in report(es.normalize_to_ir(spec(words))) if each.rule == "memory_range"]
    assert [each.path.removeprefix("layer_templates.one.memory.") for each in findings] == expected


def test_explain_shows_the_memory_and_its_price(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    from eulerstack.cli import main

    file = tmp_path / "spec.yml"
    file.write_text(json.dumps(spec({"type": "neural_memory", "params": {"hidden": 10}})), encoding="utf-8")
    assert main(["--lang", "en", "explain", "--preset", str(file), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["templates"]["one"]["memory"] == {"type": "neural_memory", "params": {"hidden": 10}}
    assert data["layers"][0]["memory"] == "neural_memory"
    assert data["layers"][0]["cache_bytes_fixed"] == 3 * 4 * 2 * 24 * 10 + 8


def test_the_plugin_is_registered_as_one_of_ours() -> None:
    registry = get_registry()
    for name in ("neural_memory", "associative", "retrieval"):
        assert registry.origin(registry.get("memory", name)) == ("eulerstack-titans", "1.0.0")


def test_the_core_gives_the_package_its_own_name(tools: Any) -> None:
    import eulerstack.plugins.titans as titans
    from eulerstack_titans.modules.neural_memory import NeuralMemory

    assert titans.NEURAL_MEMORY is tools.DECLARED["neural_memory"] and titans.NeuralMemory is NeuralMemory
    with pytest.raises(AttributeError):
        titans.nothing  # noqa: B018


def test_the_core_names_the_package_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['eulerstack_titans'] = None\n"
        "try:\n    import eulerstack.plugins.titans\n"
        "except ImportError as error:\n    assert 'pip install eulerstack-titans' in str(error), error\n"
        "else:\n    raise SystemExit('nothing was raised')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_spec_without_the_package_is_told_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EULERSTACK_DISABLE_PLUGINS", "eulerstack-titans")
    from eulerstack.plugins.manager import reset_registry

    reset_registry()
    try:
        with pytest.raises(CompatibilityError) as caught:
            es.validate_v2(spec({"type": "neural_memory", "params": {"hidden": 8}, "inner_lr": 0.1}))
    finally:
        monkeypatch.undo()
        reset_registry()
    (problem,) = caught.value.diagnostics
    assert problem.path == "layer_templates.one.memory.type"
    assert problem.fix.render() == "pip install --upgrade eulerstack-titans"


def test_the_plugin_imports_no_torch() -> None:
    code = "import sys, eulerstack_titans.plugin, eulerstack.plugins.titans; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
