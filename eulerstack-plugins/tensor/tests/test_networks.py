"""One linear layer as a tensor network: what it computes, how it begins, what it costs."""

from __future__ import annotations

import math
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eulerstack.plugins import Dims, Linear
from eulerstack_tensor.declarations.mera import MERA
from eulerstack_tensor.declarations.trains import PRODUCT_STATE, TENSOR_TRAIN
from eulerstack_tensor.declarations.weight_form import MAKERS
from eulerstack_tensor.reference import contraction

DECLARED = {primitive.name: primitive for primitive in (TENSOR_TRAIN, PRODUCT_STATE, MERA)}
DIMS: Any = Dims(48, 4, 2, 12, 80, 53, 64, 1e-5, "rope")
# (out, in, rank, cores)
SIZES = ((24, 36, 3, None), (16, 48, 1, 4), (36, 16, 100, None), (36, 24, 4, 4))


def network(form: str, out: int, into: int, rank: int, cores: int | None, bias: bool = True) -> tuple[Any, Any, Any]:
    """The module in float64 with lively weights, its declaration and its parameters."""
    made = MAKERS[form](Linear("x", into, out, bias), rank, cores)
    primitive = DECLARED[made.type]
    params = {**made.params, "in_features": into, "out_features": out, "bias": bias, "role": "hidden"}
    module, name = primitive.module.split(":")
    torch.manual_seed(0)
    built = getattr(import_module(module), name)(None, params).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    return built, primitive, params


def plain(form: str, built: Any) -> torch.Tensor:
    """The reference's matrix."""
    if form == "tt":
        return contraction.tensor_train(built.cores)
    if form == "mps":
        return contraction.product_state(built.cores, len(built.outs))
    return contraction.mera(built.top, *built.tensors(), list(built.outs), list(built.ins))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_computes_the_matrix_that_its_tensors_contract_to_forward_and_backward(form: str, size: Any) -> None:
    built, _, _ = network(form, *size)
    inputs = torch.randn(2, 3, size[1], dtype=torch.float64, requires_grad=True)
    matrix = plain(form, built)
    torch.testing.assert_close(built.dense_weight(), matrix)
    expected = torch.nn.functional.linear(inputs, matrix, built.bias)
    torch.testing.assert_close(built(inputs), expected)
    weights = torch.randn_like(expected)
    everything = (inputs, *built.parameters())
    ours = torch.autograd.grad((built(inputs) * weights).sum(), everything)
    theirs = torch.autograd.grad((expected * weights).sum(), everything)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


# With bonds of one torch multiplies entry by entry, which its counter leaves out.
@pytest.mark.parametrize("size", [size for size in SIZES if size[2] > 1], ids=str)
def test_its_price_is_what_torch_counts(form: str, size: Any) -> None:
    built, primitive, params = network(form, *size)
    cost = primitive.cost(DIMS, params, 4)
    assert cost.params == sum(parameter.numel() for parameter in built.parameters())
    tokens = 7
    with FlopCounterMode(display=False) as counter:
        built(torch.randn(tokens, size[1], dtype=torch.float64))
    declared = tokens * cost.flops_per_token if cost.prefill_flops is None else cost.prefill_flops(tokens)
    assert counter.get_total_flops() == declared


def test_it_begins_as_large_as_the_matrix_it_stands_for(form: str) -> None:
    built, _, _ = network(form, 48, 36, 5, None)
    built.initialize(0.02)
    matrix = built.dense_weight().detach()
    assert float(matrix.norm()) == pytest.approx(0.02 * math.sqrt(48 * 36), rel=1e-5)
    assert not built.bias.any()


def test_bfloat16_stays_near_the_exact_result_of_the_rounded_tensors(form: str) -> None:
    built, _, _ = network(form, 48, 36, 8, None)
    built.initialize(0.1)
    built.bfloat16()
    inputs = torch.randn(16, 36).bfloat16()
    outputs = built(inputs)
    exact = built.double()(inputs.double())
    assert outputs.dtype == torch.bfloat16
    # Rounded to 8 bits once for every tensor that is multiplied on: at most a dozen here.
    assert (outputs.double() - exact).norm() < 12 * 2**-9 * exact.norm()


def test_bonds_are_never_larger_than_can_be_used(form: str) -> None:
    built, _, params = network(form, 16, 16, 10_000, 4)
    if form == "mera":
        assert params["levels"] == ((16 // 4,) * 4, (16, 16))
    else:
        legs = [4] * 4 if form == "tt" else [2] * 8
        sides = [min(math.prod(legs[:place]), math.prod(legs[place:])) for place in range(len(legs) + 1)]
        assert list(params["bonds"]) == sides


def test_a_matrix_of_a_known_form_is_what_the_words_say() -> None:
    built, _, _ = network("tt", 6, 4, 1, 2, bias=False)
    # Bonds of one: a Kronecker product of the two cores.
    one, other = (core[0, :, :, 0] for core in built.cores)
    torch.testing.assert_close(built.dense_weight(), torch.kron(one, other))
    built, _, _ = network("mps", 6, 4, 1, 2, bias=False)
    assert torch.linalg.matrix_rank(built.dense_weight()) == 1


def test_isometries_keep_the_norm_of_the_top() -> None:
    built, _, _ = network("mera", 36, 24, 4, 4)
    built.initialize(1.0)
    isometries, disentanglers = built.tensors()
    for tensor, rows in [*((each, 1) for each in isometries[0]), *((each, 2) for each in disentanglers[0])]:
        matrix = tensor.reshape(math.prod(tensor.shape[:rows]), -1)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(built.dense_weight().norm(), built.top.norm(), atol=0, rtol=1e-5)


def test_names_of_modules_say_what_they_are(tools: SimpleNamespace) -> None:
    names = {
        type(each).__name__ for form in MAKERS for each in tools.networks(tools.model_of(tools.spec(form))).values()
    }
    assert names == {"TensorTrainLinear", "ProductStateLinear", "MeraLinear"}
