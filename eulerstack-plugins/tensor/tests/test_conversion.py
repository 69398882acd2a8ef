"""A dense matrix, and a dense model, as tensor networks; how near they come is measured."""

from __future__ import annotations

import builtins
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import eulerstack as es
from eulerstack.errors import CompatibilityError, CompileError
from eulerstack.i18n import using
from eulerstack.plugins import Linear
from eulerstack_tensor import decompositions
from eulerstack_tensor.__main__ import main
from eulerstack_tensor.conversion import convert
from eulerstack_tensor.declarations.weight_form import MAKERS
from eulerstack_tensor.modules.mera import MeraLinear
from eulerstack_tensor.modules.trains import ProductStateLinear, TensorTrainLinear

pytest.importorskip("tensorly")
CLASSES: dict[str, Any] = {"tt": TensorTrainLinear, "mps": ProductStateLinear, "mera": MeraLinear}
FULL = 10**6


def decomposed(matrix: torch.Tensor, form: str, rank: int, cores: int | None = None) -> Any:
    """The module that holds the decomposition, in float64."""
    out, into = matrix.shape
    made = MAKERS[form](Linear("x", into, out), rank, cores)
    module = CLASSES[form](None, {**made.params, "out_features": out, "bias": False}).double()
    with torch.no_grad():
        for name, tensor in decompositions.decompose(matrix, made.type, made.params).items():
            module.get_parameter(name).copy_(tensor)
    return module


def error(matrix: torch.Tensor, module: Any) -> float:
    return float((module.dense_weight().detach() - matrix).norm() / matrix.norm())


def noise(out: int, into: int) -> torch.Tensor:
    return torch.randn(out, into, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_with_whole_bonds_it_is_the_matrix(form: str) -> None:
    for shape in ((24, 36), (36, 16)):
        matrix = noise(*shape)
        assert error(matrix, decomposed(matrix, form, FULL)) < 1e-13


def test_smaller_bonds_are_never_better(form: str) -> None:
    matrix = noise(16, 36)
    errors = [error(matrix, decomposed(matrix, form, rank, 4)) for rank in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] < 1


def test_a_matrix_that_is_such_a_network_is_found_again() -> None:
    for form in ("tt", "mps"):
        made = MAKERS[form](Linear("x", 24, 36), 3, None)
        module = CLASSES[form](None, {**made.params, "out_features": 36, "bias": False}).double()
        torch.manual_seed(1)
        module.initialize(1.0)
        matrix = module.dense_weight().detach()
        assert error(matrix, decomposed(matrix, form, 3)) < 1e-13
        # A matrix of a lower rank than its bonds too.
        assert error(matrix, decomposed(matrix, form, 7)) < 1e-13


def test_a_train_is_as_near_as_singular_values_promise() -> None:
    matrix, rank = noise(27, 64), 5
    module = decomposed(matrix, "tt", rank)
    sites = decompositions._sites(matrix, list(module.outs), list(module.ins))
    cut = []
    for place in range(1, sites.ndim):
        values = torch.linalg.svdvals(sites.flatten(0, place - 1).flatten(1))
        cut.append(float((values[rank:] ** 2).sum()))
    squared = (error(matrix, module) * float(matrix.norm())) ** 2
    assert max(cut) <= squared * (1 + 1e-9) and squared <= sum(cut) * (1 + 1e-9)


def test_disentanglers_bring_a_mera_nearer_than_its_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MAKERS["mera"](Linear("x", 36, 24), 4, 4)
    module = MeraLinear(None, {**made.params, "out_features": 24, "bias": False}).double()
    torch.manual_seed(2)
    module.initialize(1.0)
    matrix = module.dense_weight().detach()
    swept = decomposed(matrix, "mera", 4, 4)
    monkeypatch.setattr(decompositions, "SWEEPS", 0)
    tree = decomposed(matrix, "mera", 4, 4)
    assert error(matrix, swept) < 0.8 * error(matrix, tree)
    for tensors, rows in zip(swept.tensors(), (1, 2), strict=True):
        for tensor in (each for level in tensors for each in level):
            flat = tensor.detach().reshape(math.prod(tensor.shape[:rows]), -1)
            torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat), dtype=torch.float64), atol=1e-12, rtol=0)


def logits(directory: Path, ids: torch.Tensor) -> torch.Tensor:
    from eulerstack.hf.models import EulerStackForCausalLM

    with torch.no_grad():
        return EulerStackForCausalLM.from_pretrained(directory)(ids).logits


def test_a_converted_model_computes_what_the_dense_one_does(
    form: str, dense: Path, tools: SimpleNamespace, tmp_path: Path
) -> None:
    report = convert(dense, tmp_path / "made", {"form": form, "rank": FULL // 100, "match": ["*.mixer.*"]})
    assert len(report) == 8 and all(each.error < 1e-6 for each in report)
    ids = tools.some_ids()
    torch.testing.assert_close(logits(tmp_path / "made", ids), logits(dense, ids), atol=1e-5, rtol=0)
    before, after = load_file(dense / "model.safetensors"), load_file(tmp_path / "made" / "model.safetensors")
    same = [name for name in before if name in after]
    assert "model.layers.0.mixer.q_proj.bias" in same and "model.layers.0.ffn.up_proj.weight" in same
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_the_error_reported_is_that_of_the_weights_written(dense: Path, tmp_path: Path) -> None:
    report = convert(dense, tmp_path / "made", {"form": "tt", "rank": 5})
    ir = es.normalize_to_ir(es.export_spec(tmp_path / "made"))
    model = es.compile_to_hf_model(ir)
    model.load_state_dict({**model.state_dict(), **load_file(tmp_path / "made" / "model.safetensors")})
    weights = load_file(dense / "model.safetensors")
    for each in report:
        matrix, network = weights[f"{each.name}.weight"].double(), model.get_submodule(each.name).double()
        assert 0.1 < each.error == pytest.approx(error(matrix, network), rel=1e-5)
        assert each.params == sum(core.numel() for core in network.cores) and each.dense_params == matrix.numel()


def test_the_command_prints_a_line_for_each_layer(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(dense), str(tmp_path / "made"), "--form", "mps", "--rank", "4", "--match", "*.ffn.*"]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main([*words, "--force", "--json"]) == 0
    assert {"name", "params", "dense_params", "error"} == set(json.loads(capsys.readouterr().out)[0])
    assert main(words) == 1
    assert "--force" in capsys.readouterr().err


def test_what_can_not_be_converted_is_refused(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(dense, tmp_path / "made", {"form": "tt", "rank": 2, "match": ["*.q_proj"]})
    with using("en"), pytest.raises(CompileError, match="has the key vendor.tensor.weight_form already"):
        convert(tmp_path / "made", tmp_path / "twice", "tt")
    with using("en"), pytest.raises(CompatibilityError, match="fits no linear layer"):
        convert(dense, tmp_path / "other", {"form": "tt", "match": ["*.w1"]})

    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("tensorly"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with using("en"), pytest.raises(CompileError, match="need the package tensorly"):
        convert(dense, tmp_path / "other", "tt")
    assert not (tmp_path / "other").exists()
