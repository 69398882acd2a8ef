"""Retention with flash-linear-attention's kernel, interpreted: what our side gives it, and what it makes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.oracles.kernels import (  # noqa: E402
    INTERPRETS,
    claimed_gpu,
    counted,
    hold,
    hold_in_16_bits,
    in_pieces,
    interpreted,
)

with warnings.catch_warnings():
    # It says that there is no GPU.
    warnings.simplefilter("ignore")
    retention = pytest.importorskip("fla.ops.retention", reason="fla-core is not installed: make oracles")

from eulerstack_mixers.modules import retnet  # noqa: E402
from tests.model.mixers.retnet import spec  # noqa: E402
from tests.model.specs import built, changed, tokens  # noqa: E402

pytestmark = INTERPRETS


@contextmanager
def kernel() -> Iterator[list[str]]:
    """A machine that claims a GPU with fla; the names of kernels that were called."""
    calls: list[str] = []
    with (
        patch.object(retnet, "fla_retention", counted(retention.chunk_retention, calls)),
        claimed_gpu(),
        interpreted(),
    ):
        yield calls


def model_of(**params: Any) -> Any:
    """One layer of three heads, keys 12 and values 24 wide."""
    return built(changed(spec(**params), {"layer_schedule.0.repeat": 1}))


def whole(ids: Any, **words: Any) -> Callable[[Any], Any]:
    return lambda model: model(ids, use_cache=False, **words).logits


@pytest.fixture
def any_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is taken in float32 too, in which it computes as exactly as PyTorch when it is interpreted."""
    monkeypatch.setattr(retnet.Retention, "takes_kernel", lambda mixer, query, *others: kernel_is_on(query))


def kernel_is_on(query: Any) -> bool:
    return query.is_cuda and query.shape[2] > 1


def test_outputs_and_gradients_are_those_of_pytorch(any_dtype: None) -> None:
    # More tokens than the kernel's chunks have.
    hold(model_of(), whole(tokens(1, 70)), kernel(), chunk_retention=1)


def test_text_goes_on_from_the_kernels_state_and_gradients_go_back_through_it(any_dtype: None) -> None:
    hold(model_of(), in_pieces(tokens(1, 40), (19, 20, 1)), kernel(), chunk_retention=2)


@pytest.mark.parametrize("autocast", [False, True], ids=["float16", "autocast"])
def test_16_bits_are_near_float64_with_the_kernel_and_without(autocast: bool) -> None:
    hold_in_16_bits(model_of, whole(tokens(2, 40)), kernel(), autocast, chunk_retention=1)


def test_what_the_kernel_does_not_know_is_pytorchs() -> None:
    ids, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    positions = torch.cat([torch.arange(4), torch.arange(5)])[None]
    for run in (
        lambda model: whole(ids, attention_mask=mask)(model)[mask.bool()],
        whole(ids[:1], position_ids=positions),
    ):
        hold_in_16_bits(model_of, run, kernel(), autocast=False)
    # Odd widths, which its backward pass refuses.
    hold_in_16_bits(lambda: model_of(value_factor=13 / 12), whole(ids), kernel(), autocast=False)
