"""Both state spaces against mamba-ssm's own reference functions, forward and backward."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from tests.oracles.kernels import stand_ins  # noqa: E402

with stand_ins(), warnings.catch_warnings():
    # triton says that there is no GPU.
    warnings.simplefilter("ignore")
    reason = "mamba-ssm is not installed: make oracles"
    interface = pytest.importorskip("mamba_ssm.ops.selective_scan_interface", reason=reason)
    minimal = pytest.importorskip("mamba_ssm.modules.ssd_minimal", reason=reason)
    updates = pytest.importorskip("mamba_ssm.ops.triton.selective_state_update", reason=reason)

from eulerstack_mixers.modules.mamba1 import SelectiveScan  # noqa: E402
from eulerstack_mixers.modules.mamba2 import chunked_scan, scan_step  # noqa: E402


def close(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def gradients(output: Any, weight: Any, inputs: tuple[Any, ...]) -> Any:
    return torch.autograd.grad((output * weight).sum(), inputs)


@pytest.mark.parametrize(("batch", "time", "width", "states"), [(1, 1, 3, 2), (2, 37, 5, 4), (3, 64, 8, 16)])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_selective_scan_is_theirs(batch: int, time: int, width: int, states: int, chunk: int) -> None:
    torch.manual_seed(time + chunk)
    values = torch.randn(batch, width, time, requires_grad=True)
    steps = (torch.rand(batch, width, time) * 0.8 + 0.01).requires_grad_()
    rates = (-torch.rand(width, states) * 16).requires_grad_()
    b_vectors, c_vectors = (torch.randn(batch, states, time, requires_grad=True) for _ in range(2))
    given = (values, steps, rates, b_vectors, c_vectors)
    expected, last = interface.selective_scan_ref(*given, return_last_state=True)

    first = (2, 0, 1)
    output, state = SelectiveScan.apply(
        steps.permute(first), (steps * values).permute(first), rates.T, b_vectors.permute(first),
        c_vectors.permute(first), None, torch.zeros(batch, states, width), chunk,
    )  # fmt: skip
    output = output.permute(1, 2, 0)
    close((output, state.transpose(1, 2)), (expected, last))
    weight = torch.randn_like(expected)
    close(gradients(output, weight, given), gradients(expected, weight, given))


@pytest.mark.parametrize(("batch", "heads", "width", "states"), [(1, 1, 4, 2), (2, 6, 8, 5)])
@pytest.mark.parametrize("chunk", [1, 8, 32])
def test_the_chunked_scan_is_theirs(batch: int, heads: int, width: int, states: int, chunk: int) -> None:
    torch.manual_seed(heads + chunk)
    time = 32
    values = torch.randn(batch, time, heads, width, requires_grad=True)
    steps = (torch.rand(batch, time, heads) * 0.8 + 0.01).requires_grad_()
    rates = (-torch.rand(heads) * 16).requires_grad_()
    b_vectors, c_vectors = (torch.randn(batch, time, heads, states, requires_grad=True) for _ in range(2))
    given = (values, steps, rates, b_vectors, c_vectors)
    expected, last = minimal.ssd_minimal_discrete(
        values * steps.unsqueeze(-1), steps * rates, b_vectors, c_vectors, block_len=min(chunk, 8)
    )
    start = torch.zeros(batch, heads, width, states)
    output, state = chunked_scan(values, steps, rates, b_vectors, c_vectors, start, None, chunk)
    close((output, state), (expected, last))
    weight = torch.randn_like(expected)
    close(gradients(output, weight, given), gradients(expected, weight, given))


@pytest.mark.parametrize("groups", [1, 3])
def test_a_step_of_decoding_is_theirs(groups: int) -> None:
    torch.manual_seed(groups)
    batch, heads, width, states = 2, 6, 8, 5
    values, steps = torch.randn(batch, 1, heads, width), torch.rand(batch, 1, heads) + 0.01
    rates = -torch.rand(heads) * 16
    b_vectors, c_vectors = (torch.randn(batch, 1, groups, states) for _ in range(2))
    state = torch.randn(batch, heads, width, states)
    theirs = state.clone()
    expected = updates.selective_state_update_ref(
        theirs, values[:, 0], steps[:, 0, :, None].expand(-1, -1, width).contiguous(),
        rates[:, None, None].expand(-1, width, states).contiguous(), b_vectors[:, 0], c_vectors[:, 0],
    )  # fmt: skip
    output, after = scan_step(values, steps, rates, b_vectors, c_vectors, state)
    close((output[:, 0], after), (expected, theirs))
