"""The key in a spec: which layers it reaches, what it costs, what it refuses, and that exports live without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.cli import main
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.hf.optimizers import create_optimizer, optimizer_groups
from eulerstack.i18n import using
from eulerstack.ir.printer import print_ir
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report

ELSEWHERE = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("eulerstack", "eulerstack_mixers", "eulerstack_tensor", "tensorly"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
found = {}
for directory in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()
    with torch.no_grad():
        found[directory] = model(torch.tensor(json.loads(sys.argv[1]))).logits.tolist()
    model.save_pretrained(directory + "-again")
print(json.dumps(found))
"""


def test_the_package_is_a_strangers(tools: SimpleNamespace) -> None:
    (record,) = [each for each in get_registry().records() if each.package == "eulerstack-tensor"]
    assert record.state == "ok" and not record.own, record.traceback
    assert {name for _, name in record.primitives} == {
        f"vendor.tensor.{name}" for name in ("tensor_train", "matrix_product_state", "mera")
    }


def test_the_word_alone_stands_for_the_form_with_its_defaults(form: str, tools: SimpleNamespace) -> None:
    ir = es.normalize_to_ir(tools.spec(form))
    assert dict(ir.extensions[tools.KEY]) == {
        "form": form, "rank": 16, "cores": None, "match": ("*",), "roles": ("hidden", "query", "output")
    }  # fmt: skip
    assert es.normalize_to_ir(parse_text(print_ir(ir), "again.yml")) == ir
    assert len(tools.networks(tools.model_of(tools.spec(form)))) == 14


WORDS = {
    "form": ("tt", "mps"),
    "rank": (2, 3),
    "cores": (2, 3),
    "match": (["*.q_proj"], ["*.k_proj"]),
    "roles": (["query"], ["output"]),
}


@pytest.mark.parametrize("word", WORDS)
def test_every_word_changes_the_model_and_its_price_stays_exact(word: str, tools: SimpleNamespace) -> None:
    shapes = []
    for value in WORDS[word]:
        ir = es.normalize_to_ir(tools.spec({"form": "tt", "rank": 4, word: value}))
        model = es.compile_to_hf_model(ir)
        assert es.count_parameters(ir) == sum(parameter.numel() for parameter in model.parameters())
        shapes.append({name: tuple(each.shape) for name, each in model.state_dict().items()})
    assert shapes[0] != shapes[1]


def test_dense_leaves_a_template_out(tools: SimpleNamespace) -> None:
    spec = tools.spec({"form": "tt", "rank": 4})
    spec["layer_templates"]["plain"] = {**spec["layer_templates"]["decoder"], tools.KEY: "dense"}
    spec["layer_schedule"].append({"template": "plain"})
    assert {name.split(".")[2] for name in tools.networks(tools.model_of(spec))} == {"0", "1"}


def test_explain_prints_both_prices(form: str, tools: SimpleNamespace, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    value = {"form": form, "rank": 4, "match": ["*.ffn.*"]}
    (tmp_path / "spec.yml").write_text(json.dumps(tools.spec(value)), encoding="utf-8")
    assert main(["--lang", "en", "explain", str(tmp_path / "spec.yml"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    ir = es.normalize_to_ir(tools.spec(value))
    dense = model_cost(es.normalize_to_ir(tools.spec()))
    groups = data["replaced_linears"]
    assert sum(len(group["modules"]) for group in groups) == 6
    saved = sum(group["dense_params"] - group["total_params"] for group in groups)
    assert data["params"]["total"] == es.count_parameters(ir) == dense.total - saved
    for phase, word in (("decode", "flops_per_token"), ("prefill", "flops_per_prompt_token")):
        less = sum(group["dense_flops_per_token"] - group[word] for group in groups)
        assert data[word] == pytest.approx(dense.flops_per_token(64, phase) - less)  # type: ignore[arg-type]
    assert data["weight_bytes"] == 4 * es.count_parameters(ir)
    assert main(["--lang", "en", "explain", str(tmp_path / "spec.yml")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{tools.KEY}: 4 linear layers as vendor.tensor." in printed


REFUSED: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "a pattern that fits nothing": ({"form": "tt", "match": ["*.q_proj", "*.w1"]}, {}, "match[1]", "*.w1 fits no"),
    "the readout": ({"form": "tt", "match": ["lm_head"]}, {}, "match[0]", "means a table"),
    "the embedding": ({"form": "mps", "match": ["model.embed*"]}, {}, "match[0]", "means a table"),
    "roles that nothing has": ({"form": "tt", "match": ["*.k_proj"], "roles": ["output"]}, {}, "roles", "no linear"),
    "more cores than factors": ({"form": "tt", "cores": 7}, {}, "", "can't both be split into 7 factors"),
    "sites that are no power of two": ({"form": "mera", "cores": 3}, {}, "", "a mera joins sites in pairs"),
    "mup": (
        "tt", {"training_hints": {"scaling": {"parametrization": "mup", "base_width": 24}}}, "", "rules for matrices"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_is_refused_with_its_place(name: str, tools: SimpleNamespace) -> None:
    value, sections, path, what = REFUSED[name]
    text = json.dumps(tools.spec(value, **sections), indent=1)
    with using("en"), pytest.raises(CompatibilityError) as caught:
        es.normalize_to_ir(parse_text(text, "spec.yml"))
    (problem,) = caught.value.diagnostics
    assert problem.path == ".".join(filter(None, (tools.KEY, path))) and problem.location is not None
    with using("en"):
        assert what in problem.lines()[0] and problem.lines()[1].startswith("Fix: Type")


def test_a_prime_width_is_refused_and_none_of_a_latent(form: str, tools: SimpleNamespace) -> None:
    spec = tools.spec({"form": form, "match": ["*.ffn.*"]})
    spec["model"]["d_ff"] = 83
    with using("en"), pytest.raises(CompatibilityError, match="gate_proj is 83 by 48"):
        es.normalize_to_ir(spec)
    spec = tools.spec({"form": form, "match": ["*.mixer.*"]})
    spec["layer_templates"]["decoder"]["mixer"]["attention"] = {"latent_dim": 16}
    with using("en"), pytest.raises(CompatibilityError, match="fits no linear layer"):
        es.normalize_to_ir(spec)


def test_a_wrong_word_is_an_error_of_the_language(tools: SimpleNamespace) -> None:
    for value in ("peps", {"form": "tt", "rnak": 3}, {"rank": 3}, {"form": "tt", "cores": 1}):
        with pytest.raises(ValidationError):
            es.validate_v2(tools.spec(value))


def test_networks_larger_than_matrices_are_reported(tools: SimpleNamespace) -> None:
    found = report(es.normalize_to_ir(tools.spec({"form": "tt", "rank": 9999})))
    (finding,) = [each for each in found if each.rule == "tensor_no_smaller"]
    assert finding.path == tools.KEY
    small = report(es.normalize_to_ir(tools.spec({"form": "tt", "rank": 2})))
    assert not [each for each in small if each.rule == "tensor_no_smaller"]


@pytest.mark.parametrize("scheme", ["normal", "scaled_normal", "truncated_normal", "xavier_normal", "lecun_normal"])
def test_networks_begin_as_large_as_the_matrices_of_the_scheme(scheme: str, tools: SimpleNamespace) -> None:
    hints = {"training_hints": {"init": scheme}}
    dense = tools.model_of(tools.spec(**hints))
    for name, network in tools.networks(tools.model_of(tools.spec({"form": "tt", "rank": 8}, **hints))).items():
        wanted = dense.get_submodule(name).weight.norm()
        torch.testing.assert_close(network.dense_weight().norm(), wanted, rtol=0.06, atol=0)


def test_cached_decoding_equals_the_whole_and_it_learns(form: str, tools: SimpleNamespace) -> None:
    model, ids = tools.model_of(tools.spec({"form": form, "rank": 4})), tools.some_ids()
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :4], use_cache=True)
        rest = model(ids[:, 4:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(torch.cat((first.logits, rest), 1), whole, atol=1e-5, rtol=0)
    model.train()
    optimizer = torch.optim.AdamW(optimizer_groups(model), lr=0)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    losses = []
    for _ in range(6):
        loss = model(ids, labels=ids).loss
        loss.backward()
        assert all(part.grad is not None and part.grad.any() for each in tools.networks(model).values()
                   for name, part in each.named_parameters() if name != "bias")  # fmt: skip
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_tensors_decay_like_matrices_and_go_to_adamw_beside_muon(tools: SimpleNamespace) -> None:
    hints = {"optimizer": "hybrid", "weight_decay": 0.1,
             "optimizer_groups": [{"match": "*.core_*", "weight_decay": 0.02}]}  # fmt: skip
    model = tools.model_of(tools.spec({"form": "tt", "match": ["*.ffn.*"]}, training_hints=hints))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_core = [group for group in optimizer_groups(model) if any("core_" in names[id(p)] for p in group["params"])]
    (group,) = of_core
    assert (group["optimizer"], group["role"], group["weight_decay"]) == ("adamw", "hidden", 0.02)
    assert len(group["params"]) == 18
    create_optimizer(model).step()


def test_a_part_with_a_network_is_not_split(tools: SimpleNamespace) -> None:
    plan = tools.model_of(tools.spec({"form": "tt", "match": ["*.ffn.up_proj"]})).config.tensor_parallel_plan
    assert plan and not any("ffn" in name for name in plan)


def test_the_export_loads_without_any_package_of_ours_and_saves_again(tools: SimpleNamespace, tmp_path: Path) -> None:
    ids = tools.some_ids()
    wanted = {}
    for form in ("tt", "mps", "mera"):
        ir = es.normalize_to_ir(tools.spec({"form": form, "rank": 4}))
        directory = es.compile_to_directory(ir, tmp_path / form, seed=3)
        source = (directory / "modeling_eulerstack.py").read_text(encoding="utf-8")
        assert "eulerstack_tensor.declarations" not in source and "import eulerstack" not in source
        provenance = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
        assert provenance["plugins"]["eulerstack-tensor"] == "1.0.0"
        with torch.no_grad():
            wanted[str(directory)] = es.compile_to_hf_model(ir, seed=3)(ids).logits
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps(ids.tolist()), *wanted],
        check=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    found = json.loads(done.stdout.decode().splitlines()[-1])
    for directory, logits in wanted.items():
        torch.testing.assert_close(torch.tensor(found[directory]), logits, atol=1e-6, rtol=0)
        first = (Path(directory) / "model.safetensors").stat().st_size
        assert abs((Path(f"{directory}-again") / "model.safetensors").stat().st_size - first) < 1000


def test_layers_that_a_head_has_of_its_own_stay_dense(tools: SimpleNamespace) -> None:
    head = {"type": "causal_lm_mtp", "mtp": {"n_predict": 2}}
    model = tools.model_of(tools.spec({"form": "tt", "rank": 4}, head=head))
    assert all(name.startswith("model.layers.") for name in tools.networks(model))
    ir = es.normalize_to_ir(tools.spec({"form": "tt", "rank": 4}, head=head))
    assert es.count_parameters(ir) == sum(parameter.numel() for parameter in model.parameters())
