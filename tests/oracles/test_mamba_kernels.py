"""Both state spaces with mamba-ssm's and causal-conv1d's kernels: what our side gives them, and what it makes of it.

mamba-ssm's chunked scan is written in Triton and is interpreted; the selective scan and the convolution are CUDA C++,
of which everything runs but the extension, for which the packages' reference functions stand. No GPU takes part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.oracles.kernels import (  # noqa: E402
    INTERPRETS,
    ConvolutionExtension,
    SelectiveScanExtension,
    claimed_gpu,
    counted,
    hold,
    hold_in_16_bits,
    in_pieces,
    interpreted,
    products_in_tf32,
    stand_ins,
)

with stand_ins(), warnings.catch_warnings():
    # triton says that there is no GPU.
    warnings.simplefilter("ignore")
    reason = "mamba-ssm or causal-conv1d is not installed: make oracles"
    interface = pytest.importorskip("mamba_ssm.ops.selective_scan_interface", reason=reason)
    combined = pytest.importorskip("mamba_ssm.ops.triton.ssd_combined", reason=reason)
    convolution = pytest.importorskip("causal_conv1d", reason=reason)
    cpp_functions = pytest.importorskip("causal_conv1d.cpp_functions", reason=reason)

from eulerstack_mixers.modules import mamba1, mamba2, mamba_parts  # noqa: E402
from tests.model.mixers.mamba import FFN, MIXER  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402

FINDERS = {"mamba1": (mamba1, "selective_scan_kernel"), "mamba2": (mamba2, "chunk_scan_kernel")}
KERNELS = {
    "mamba1": interface.selective_scan_fn,
    "mamba2": combined.mamba_chunk_scan_combined,
}
CONVOLUTION = "causal_conv1d_fn"
VARIANTS = [
    ("mamba1", "selective_scan_fn"),
    pytest.param("mamba2", "mamba_chunk_scan_combined", marks=INTERPRETS),
]
TIME = 40


def model_of(variant: str, **words: Any) -> Any:
    """One layer whose channels come in eights, and two heads in mamba2."""
    sizes = {"head_dim": 32, "chunk_size": 16} if variant == "mamba2" else {}
    mixer = {"type": "mamba", "mamba": {"variant": variant, "d_state": 8, **sizes, **words}}
    narrow = {"model.d_model": 32, "model.n_heads": 2, "layer_schedule.0.repeat": 1}
    return built(changed(tiny_spec(), {MIXER: mixer, FFN: {"type": "none"}, **narrow}))


@contextmanager
def kernels(variant: str) -> Iterator[list[str]]:
    """A machine that claims a GPU with both packages, the references in the place of CUDA C++; the names of kernels
    that were called."""
    calls: list[str] = []
    scan = SelectiveScanExtension(interface.selective_scan_ref)
    conv = ConvolutionExtension(convolution.causal_conv1d_interface.causal_conv1d_ref)
    finders = ((mamba_parts, "convolution_kernel", convolution.causal_conv1d_fn), (*FINDERS[variant], KERNELS[variant]))
    with ExitStack() as stack:
        for module, name, kernel in finders:
            stack.enter_context(patch.object(module, name, counted(kernel, calls)))
        for module, extension, names in (
            (interface.selective_scan_cuda, scan, ("fwd", "bwd")),
            (cpp_functions.causal_conv1d_cuda, conv, ("causal_conv1d_fwd", "causal_conv1d_bwd")),
        ):
            for name in names:
                stack.enter_context(patch.object(module, name, getattr(extension, name), create=True))
        # Where PyTorch may, mamba2's kernel may; interpreted, it computes in float32 all the same.
        stack.enter_context(products_in_tf32())
        stack.enter_context(claimed_gpu())
        stack.enter_context(interpreted())
        yield calls


def whole(ids: Any, **words: Any) -> Callable[[Any], Any]:
    return lambda model: model(ids, use_cache=False, **words).logits


@pytest.mark.parametrize(("variant", "scan"), VARIANTS)
def test_outputs_and_gradients_are_those_of_pytorch(variant: str, scan: str) -> None:
    hold(model_of(variant), whole(tokens(2, TIME)), kernels(variant), **{scan: 1, CONVOLUTION: 1})


@pytest.mark.parametrize(("variant", "scan"), VARIANTS)
def test_padding_is_passed_over(variant: str, scan: str) -> None:
    ids, mask = tokens(2, TIME), torch.ones(2, TIME, dtype=torch.long)
    mask[0, :7] = mask[1, 30:] = 0
    # Shared vectors of two groups, and a convolution of three tokens without a bias.
    model = model_of(variant, d_conv=3, conv_bias=False, **({"n_groups": 2} if variant == "mamba2" else {}))
    run = whole(ids, attention_mask=mask)
    hold(model, lambda model: run(model)[mask.bool()], kernels(variant), **{scan: 1, CONVOLUTION: 1})


@pytest.mark.parametrize(("variant", "scan"), VARIANTS)
def test_packed_sequences_do_not_meet(variant: str, scan: str) -> None:
    run = whole(tokens(1, TIME), position_ids=torch.cat([torch.arange(17), torch.arange(TIME - 17)])[None])
    # mamba1's scan knows no borders, and PyTorch's is taken.
    scans = {scan: 1} if variant == "mamba2" else {}
    hold(model_of(variant), run, kernels(variant), **scans, **{CONVOLUTION: 1})


@pytest.mark.parametrize(("variant", "scan"), VARIANTS)
def test_text_goes_on_from_the_kernels_state_and_gradients_go_back_through_it(variant: str, scan: str) -> None:
    run = in_pieces(tokens(1, TIME), (19, 20, 1))
    # A single token is PyTorch's, and what follows a state is it in mamba1.
    hold(model_of(variant), run, kernels(variant), **{scan: 1 if variant == "mamba1" else 2, CONVOLUTION: 3})


@pytest.mark.parametrize(("variant", "scan"), VARIANTS)
@pytest.mark.parametrize("autocast", [False, True], ids=["float16", "autocast"])
def test_16_bits_are_near_float64_with_kernels_and_without(variant: str, scan: str, autocast: bool) -> None:
    times = {scan: 1, CONVOLUTION: 1}
    hold_in_16_bits(lambda: model_of(variant), whole(tokens(2, TIME)), kernels(variant), autocast, **times)


def test_more_states_than_the_selective_scan_takes_are_pytorchs() -> None:
    hold(model_of("mamba1", d_state=257), whole(tokens(1, 5)), kernels("mamba1"), **{CONVOLUTION: 1})


def test_what_is_looked_for_is_there() -> None:
    finders = (mamba_parts.convolution_kernel, mamba1.selective_scan_kernel, mamba2.chunk_scan_kernel)
    for finder, kernel in zip(finders, (convolution.causal_conv1d_fn, *KERNELS.values()), strict=True):
        finder.cache_clear()
        assert finder() is kernel
        finder.cache_clear()
