"""Retention against fla-core's own naive implementation, forward and backward."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    # It says that there is no GPU.
    warnings.simplefilter("ignore")
    naive = pytest.importorskip("fla.ops.retention.naive", reason="fla-core is not installed: make oracles")

from eulerstack_mixers.modules.retnet import (  # noqa: E402
    fla_retention,
    retention_chunks,
    retention_decays,
    retention_step,
)


@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize("chunk_size", [None, 1, 16, 50])
def test_every_form_gives_the_oracles_numbers_and_gradients(heads: int, chunk_size: int | None) -> None:
    torch.manual_seed(heads)
    query, key, value = (torch.randn(2, heads, 50, width, requires_grad=True) for width in (16, 16, 32))
    expected = naive.naive_retention(query, key, value)
    log_decay = retention_decays(heads, torch.float32, "cpu")
    output, state = retention_chunks(query, key * 16**-0.5, value, log_decay, None, chunk_size)
    torch.testing.assert_close(output, expected, atol=2e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((each * weight).sum(), (query, key, value)) for each in (output, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)

    # One more token, read from the state, is the oracle's last one.
    more = [torch.cat((states, torch.randn_like(states[:, :, :1])), dim=2) for states in (query, key, value)]
    last = [states[:, :, -1:] for states in more]
    decoded, _ = retention_step(last[0], last[1] * 16**-0.5, last[2], log_decay, state, None)
    torch.testing.assert_close(decoded, naive.naive_retention(*more)[:, :, -1:], atol=2e-5, rtol=1e-5)


def test_the_kernel_that_is_looked_for_is_there() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    assert fla_retention() is not None
