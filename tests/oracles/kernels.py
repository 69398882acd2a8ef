"""What lets kernels for a GPU run on a CPU: Triton's interpreter, and stand-ins for extensions in CUDA C++.

A Triton kernel is a Python function; with TRITON_INTERPRET=1 in the environment before triton is imported (tox.ini sets
it for `make oracles`) numpy computes it program by program, on tensors of a CPU. What a CUDA C++ kernel computes can't
be run so; the package around it can, on the reference function that it ships.
"""

from __future__ import annotations

import ast
import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import pytest
import torch

INTERPRETS = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="Triton compiles for a GPU here; make oracles interprets"
)
Machine = AbstractContextManager[list[str]]
EXTENSIONS = ("selective_scan_cuda", "causal_conv1d_cuda")


@contextmanager
def stand_ins() -> Iterator[None]:
    """Empty modules for the CUDA code that mamba-ssm and causal-conv1d import and their reference functions never call.

    They are gone again afterwards, because transformers' classes would take them for kernels.
    """
    # Only where it isn't built: elsewhere the kernels themselves are wanted later.
    names = [name for name in EXTENSIONS if name not in sys.modules and find_spec(name) is None]
    sys.modules.update((name, types.ModuleType(name)) for name in names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@contextmanager
def claimed_gpu() -> Iterator[None]:
    """Every tensor says that it lies on a GPU, and nothing that would look for one finds it missing."""
    properties = types.SimpleNamespace(multi_processor_count=1)
    with (
        patch.object(torch.Tensor, "is_cuda", property(lambda tensor: True), create=True),
        patch.object(torch.cuda, "device", lambda index: nullcontext()),
        patch.object(torch.cuda, "get_device_properties", lambda device: properties),
    ):
        yield


@contextmanager
def interpreted() -> Iterator[None]:
    """Triton's interpreter as its compiler would have it, and an autotuner that takes the first of its choices.

    Three things differ without this: the autotuner measures on a device; the counter of a loop is a number of Python,
    where compiled code has a tensor; and triton 3.6 makes an int of an array of one element, which numpy 2.4 refuses.
    """
    from triton.runtime import autotuner, interpreter

    class Rewriter(interpreter.ASTTransformer):  # type: ignore[misc,name-defined]
        def visit_For(self, node: ast.For) -> ast.For:
            self.generic_visit(node)
            called = node.iter.func if isinstance(node.iter, ast.Call) else None
            if isinstance(called, ast.Name) and called.id == "range" and isinstance(node.target, ast.Name):
                counter = node.target.id
                node.body[:0] = ast.parse(f"{counter} = interpreter_semantic.to_tensor({counter}, False)").body
            return node

    change_tensors = interpreter._patch_lang_tensor

    def with_an_index(tensor: Any, scope: Any) -> None:
        change_tensors(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    with ExitStack() as stack:
        for place, name, value in (
            (autotuner.Autotuner, "_bench", lambda *args, **words: [0.0]),
            (interpreter, "_patch_lang_tensor", with_an_index),
            (interpreter.FunctionRewriter, "ast_transformer", Rewriter()),
        ):
            stack.enter_context(patch.object(place, name, value))
        yield


@contextmanager
def products_in_tf32() -> Iterator[None]:
    """PyTorch may multiply float32 in tf32, on a GPU."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        yield
    finally:
        products.fp32_precision = before


def counted(kernel: Callable[..., Any], calls: list[Any]) -> Callable[[], Callable[..., Any]]:
    """What finds `kernel`, which then notes each of its calls."""

    def noting(*args: Any, **words: Any) -> Any:
        calls.append(kernel.__name__)
        return kernel(*args, **words)

    return lambda: noting


def results(model: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
    """What `run` gives, and the gradients of a loss on it for every parameter."""
    model.zero_grad()
    output = run(model)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    (output.float() * weight).sum().backward()
    return {"output": output.detach(), **{name: each.grad.clone() for name, each in model.named_parameters()}}


def hold(model: Any, run: Callable[[Any], Any], machine: Machine, **times: int) -> None:
    """Outputs and gradients of `run` on `machine`, which yields the names of kernels that were called there, are those
    without it, to the accuracy of float32; kernels were called as often as `times` says, and no others."""
    expected = results(model, run)
    with machine as calls:
        found = results(model, run)
    assert Counter(calls) == times
    assert float(expected["output"].std()) > 0.01
    for name, tensor in expected.items():
        scale = max(1.0, float(tensor.abs().max()))
        assert float((found[name] - tensor).abs().max()) < 2e-5 * scale, name


def hold_in_16_bits(
    make: Callable[[], Any], run: Callable[[Any], Any], machine: Machine, autocast: bool, **times: int
) -> None:
    """Outputs and gradients, in float16 on `machine` and without it, are within 1 % of float64's.

    Not in bfloat16: the interpreter takes its bits for integers where it multiplies.
    """

    def in_16_bits(model: Any) -> Any:
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            return run(model)

    exact = results(make().double(), run)
    model = make() if autocast else make().half()
    slow = results(model, in_16_bits)
    with machine as calls:
        fast = results(model, in_16_bits)
    assert Counter(calls) == times
    for name, tensor in exact.items():
        errors = [float((each[name] - tensor).norm() / tensor.norm()) for each in (slow, fast)]
        # Ten times the spacing of numbers in float16.
        assert max(errors) < 1e-2, (name, errors)


def in_pieces(ids: Any, lengths: tuple[int, ...]) -> Callable[[Any], Any]:
    """A run over pieces of `ids`, each from the state that the one before left; logits of all but the first."""

    def run(model: Any) -> Any:
        logits, cache = [], None
        for piece in ids.split(lengths, dim=1):
            output = model(piece, past_key_values=cache, use_cache=True)
            logits, cache = [*logits, output.logits], output.past_key_values
        return torch.cat(logits[1:], dim=1)

    return run


class SelectiveScanExtension:
    """`selective_scan_cuda`, by the reference function that mamba-ssm ships; refuses what the C++ code refuses."""

    def __init__(self, reference: Callable[..., Any]):
        self.reference = reference

    @staticmethod
    def check(u: Any, delta: Any, rates: Any, b: Any, c: Any, bias: Any) -> None:
        batch, channels, time = u.shape
        assert u.dtype in (torch.float32, torch.float16, torch.bfloat16) and rates.dtype == bias.dtype == torch.float32
        assert delta.dtype == b.dtype == c.dtype == u.dtype
        assert rates.shape[1] <= 256, "at most 256 states"
        assert delta.shape == u.shape and rates.shape[0] == channels and bias.shape == (channels,)
        assert b.shape == c.shape == (batch, 1, rates.shape[1], time)
        assert all(each.stride(-1) == 1 or each.shape[-1] == 1 for each in (u, delta, b, c, bias))

    def fwd(self, u: Any, delta: Any, rates: Any, b: Any, c: Any, d: Any, z: Any, bias: Any, softplus: bool) -> Any:
        self.check(u, delta, rates, b, c, bias)
        output, last = self.reference(u, delta, rates, b, c, d, z, bias, softplus, return_last_state=True)
        # Pairs of a decay and a state at the end of every 2048 tokens; nobody but the backward pass reads the others.
        borders = torch.full((*u.shape[:2], -(-u.shape[2] // 2048), 2 * rates.shape[1]), torch.nan)
        borders[:, :, -1, 1::2] = last
        return torch.empty_like(delta).copy_(output), borders

    def bwd(
        self, u: Any, delta: Any, rates: Any, b: Any, c: Any, d: Any, z: Any, bias: Any, grad: Any, *rest: Any
    ) -> Any:
        self.check(u, delta, rates, b, c, bias)
        assert grad.dtype == u.dtype and grad.shape == u.shape and (grad.stride(-1) == 1 or grad.shape[-1] == 1)
        softplus = rest[3]
        with torch.enable_grad():
            given = [each.detach().requires_grad_() for each in (u, delta, rates, b, c, bias)]
            output = self.reference(*given[:5], d, z, given[5], softplus)
            grads = torch.autograd.grad(output, given, grad)
        return (*grads[:5], None, grads[5])


class ConvolutionExtension:
    """`causal_conv1d_cuda`, by the reference function that causal-conv1d ships; refuses what the C++ code refuses."""

    def __init__(self, reference: Callable[..., Any]):
        self.reference = reference

    @staticmethod
    def check(x: Any, weight: Any, bias: Any, sequences: Any) -> None:
        batch, channels, time = x.shape
        channels_last = x.stride(1) == 1 and x.stride(2) > 1
        assert x.dtype in (torch.float32, torch.float16, torch.bfloat16) and 2 <= weight.shape[1] <= 4
        assert channels_last or x.stride(2) == 1
        if channels_last:
            assert channels % 8 == x.stride(0) % 8 == x.stride(2) % 8 == 0, "channels in eights"
        assert weight.shape[0] == channels
        if bias is not None:
            assert bias.dtype == weight.dtype and bias.shape == (channels,) and bias.stride(0) == 1
        if sequences is not None:
            assert channels_last and sequences.dtype == torch.int32
            assert sequences.is_contiguous() and sequences.shape == (batch, time)

    def causal_conv1d_fwd(
        self, x: Any, weight: Any, bias: Any, sequences: Any, before: Any, output: Any, after: Any, silu: bool
    ) -> None:
        self.check(x, weight, bias, sequences)
        assert before is after is None
        output.copy_(self.reference(x, weight, bias, activation="silu" if silu else None, seq_idx=sequences))

    def causal_conv1d_bwd(
        self, x: Any, weight: Any, bias: Any, grad: Any, sequences: Any, before: Any, grad_after: Any,
        grad_x: Any, grad_weight: Any, grad_bias: Any, grad_before: Any, silu: bool,
    ) -> None:  # fmt: skip
        self.check(x, weight, bias, sequences)
        given = [each.detach().requires_grad_() for each in (x, weight, bias) if each is not None]

        def gradients() -> Any:
            output = self.reference(*given, activation="silu" if silu else None, seq_idx=sequences)
            return torch.autograd.grad(output, given, grad)

        # This thread is inside an operator of torch.library, where nothing is recorded for a backward pass.
        with ThreadPoolExecutor(1) as outside:
            grads = outside.submit(gradients).result()
        for into, found in zip((grad_x, grad_weight, grad_bias), grads, strict=False):
            into.copy_(found)
