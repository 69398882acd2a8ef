"""A memory as part of a layer: its state, its precision, its parameters, long and packed and padded inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eulerstack.hf.cache import StateLayer
from eulerstack_titans.modules.neural_memory import gelu_slope


def inputs(time: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, time, 24, dtype=dtype, generator=torch.Generator().manual_seed(time))


def new_cache() -> Any:
    return SimpleNamespace(layers=[StateLayer()])


def decoded(memory: Any, hidden_states: torch.Tensor, lengths: list[int], mask: Any = None) -> tuple[Any, StateLayer]:
    cache = new_cache()
    masks = [None] * len(lengths) if mask is None else mask.split(lengths, dim=1)
    pieces = [
        memory(piece, attention_mask=own, past_key_values=cache)
        for piece, own in zip(hidden_states.split(lengths, dim=1), masks, strict=True)
    ]
    return torch.cat(pieces, dim=1), cache.layers[0]


@pytest.mark.parametrize("lengths", [[1] * 37, [5, 32], [1, 3, 1, 7, 2, 23], [36, 1], [4, 4, 4, 25]], ids=str)
@torch.no_grad()
def test_chunks_of_any_length_give_the_full_forward(written: str, lengths: list[int], tools: Any) -> None:
    memory, hidden_states = tools.lively(written).double(), inputs(37)
    actual, _ = decoded(memory, hidden_states, lengths)
    torch.testing.assert_close(actual, memory(hidden_states), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_padding_anywhere_changes_nothing(written: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(written).double(), inputs(37)
    mask = (torch.rand(2, 37, generator=torch.Generator().manual_seed(3)) > 0.3).long()
    mask[0, :5] = 0
    whole = memory(hidden_states, attention_mask=mask)
    for row in range(2):
        kept = mask[row] == 1
        alone = memory(hidden_states[row : row + 1, kept])
        torch.testing.assert_close(whole[row, kept], alone[0], rtol=1e-10, atol=1e-10)
    pieces, _ = decoded(memory, hidden_states, [3, 1, 1, 13, 19], mask)
    torch.testing.assert_close(pieces[mask == 1], whole[mask == 1], rtol=1e-10, atol=1e-10)


def test_packed_sequences_are_those_apart(written: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(written).double(), inputs(37)
    cuts = [[5, 20, 12], [17, 1, 19]]
    ids = torch.stack([torch.arange(3).repeat_interleave(torch.tensor(cut)) for cut in cuts])
    packed = memory(hidden_states, sequence_ids=ids)
    alone = torch.stack(
        [
            torch.cat([memory(piece[None])[0] for piece in row.split(cut)])
            for row, cut in zip(hidden_states, cuts, strict=True)
        ]
    )
    torch.testing.assert_close(packed, alone, rtol=1e-10, atol=1e-10)
    wanted = list(memory.parameters())
    found = torch.autograd.grad(packed.square().sum(), wanted)
    for ours, theirs in zip(found, torch.autograd.grad(alone.square().sum(), wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("time", [1, 4, 11])
@torch.no_grad()
def test_the_state_has_the_declared_bytes_whatever_the_length(written: str, time: int, tools: Any) -> None:
    words = tools.KINDS[written]
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        declared = tools.DECLARED[words["type"]].cost(tools.DIMS, tools.complete_params(words), size)
        state = decoded(tools.lively(written).to(dtype), inputs(time, batch=3, dtype=dtype), [time])[1]
        assert state.state_bytes == 3 * declared.state_bytes_fixed
        assert declared.state_bytes_per_token == 0


def test_a_pass_changes_no_parameter_and_needs_no_gradient(kind: str, tools: Any) -> None:
    memory = tools.lively(kind)
    before = {name: parameter.clone() for name, parameter in memory.named_parameters()}
    trained = memory(inputs(9, dtype=torch.float32))
    with torch.no_grad():
        read = memory(inputs(9, dtype=torch.float32))
    with torch.inference_mode():
        inferred = memory(inputs(9, dtype=torch.float32))
    assert torch.equal(trained.detach(), read) and torch.equal(read, inferred) and not read.requires_grad
    assert all(torch.equal(before[name], parameter) for name, parameter in memory.named_parameters())


def test_training_and_evaluation_compute_the_same(kind: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(kind), inputs(13, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(memory.train()(hidden_states), memory.eval()(hidden_states))


@torch.no_grad()
def test_earlier_tokens_change_what_later_ones_read(written: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(written).double(), inputs(6)
    other = hidden_states.clone()
    other[:, 0] = -other[:, 0]
    before, after = memory(hidden_states), memory(other)
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-4
    later = hidden_states.clone()
    later[:, 3] = -later[:, 3]
    assert torch.equal(before[:, :3], memory(later)[:, :3]) or written.startswith("associative")
    torch.testing.assert_close(before[:, :3], memory(later)[:, :3], rtol=1e-12, atol=1e-12)


def test_bfloat16_learns_in_float32(written: str, tools: Any) -> None:
    exact, half = tools.lively(written), tools.lively(written).to(torch.bfloat16)
    hidden_states = inputs(33, dtype=torch.float32)
    expected, actual = exact(hidden_states), half(hidden_states.bfloat16())
    assert actual.dtype == torch.bfloat16
    # Which of two tokens is nearer may depend on rounding.
    if written != "retrieval":
        assert (actual.float() - expected).norm() / expected.norm() < 0.05
    actual.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters())
    if not written.startswith("retrieval"):
        with torch.no_grad():
            state = decoded(half, hidden_states.bfloat16(), [33])[1]
        assert all(tensor.dtype == torch.float32 for name, tensor in state.slots.items() if name != "tokens")


@torch.no_grad()
def test_autocast_leaves_the_inner_training_in_float32(written: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(written), inputs(9, dtype=torch.float32)
    cache = new_cache()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = memory(hidden_states, past_key_values=cache)
    state = cache.layers[0].slots
    assert all(tensor.dtype == torch.float32 for name, tensor in state.items() if name != "tokens")
    if written != "retrieval":
        expected = memory(hidden_states)
        assert (actual.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(
    "words",
    [{"type": "neural_memory"}, {"type": "associative"}, {"type": "retrieval"}],
    ids=lambda words: words["type"],
)
def test_a_long_input_stays_finite_forward_and_backward(words: dict[str, Any], tools: Any) -> None:
    memory, hidden_states = tools.initial(words), inputs(1024, batch=1, dtype=torch.float32).requires_grad_()
    outputs = memory(hidden_states)
    outputs.square().mean().backward()
    assert torch.isfinite(outputs).all() and torch.isfinite(hidden_states.grad).all()


@torch.no_grad()
def test_it_compiles_into_one_graph_where_nothing_is_packed(written: str, tools: Any) -> None:
    torch._dynamo.reset()
    memory, hidden_states = tools.lively(written), inputs(9, dtype=torch.float32)
    compiled = torch.compile(memory, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(hidden_states), memory(hidden_states), rtol=1e-5, atol=1e-5)
    cache = new_cache()
    memory(hidden_states[:, :5], past_key_values=cache)
    steps = [compiled(hidden_states[:, time : time + 1], past_key_values=cache) for time in range(5, 9)]
    torch.testing.assert_close(torch.cat(steps, 1), memory(hidden_states)[:, 5:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_gates_begin_where_the_spec_says(tools: Any) -> None:
    neural = tools.initial({"type": "neural_memory", "momentum": 0.8, "forget": 0.03})
    expected = torch.tensor([0.5, 0.8, 0.03])
    torch.testing.assert_close(torch.sigmoid(neural.gate_bias), expected)
    matrix = tools.initial({"type": "associative", "forget": 0.2})
    torch.testing.assert_close(torch.sigmoid(matrix.gate_bias), torch.tensor([0.5] * 3 + [0.2] * 3))
    assert 0.01 < float(neural.inner_weights[0].std()) < 0.03


@torch.no_grad()
def test_what_is_read_again_surprises_less(tools: Any) -> None:
    memory = tools.initial({"type": "neural_memory", "inner_lr": 1.0, "depth": 1, "forget": 0, "momentum": 0})
    hidden_states, valid = inputs(8, batch=1, dtype=torch.float32), torch.ones(1, 8, dtype=torch.bool)
    state = memory.first_state(hidden_states)
    surprises = []
    for _ in range(20):
        state, surprise = memory.step(hidden_states, state, valid)
        surprises.append(float(surprise))
    assert surprises == sorted(surprises, reverse=True) and surprises[-1] < 0.9 * surprises[0]


@torch.no_grad()
def test_a_step_on_one_token_is_what_reading_it_does(tools: Any) -> None:
    memory, hidden_states = tools.lively("neural-online").double(), inputs(1)
    stepped, _ = memory.step(hidden_states, memory.first_state(hidden_states), torch.ones(2, 1, dtype=torch.bool))
    _, state = decoded(memory, hidden_states, [1])
    for name, tensor in stepped.items():
        torch.testing.assert_close(tensor, state.get(name), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_rows_are_stepped_apart_and_padding_does_not_count(written: str, tools: Any) -> None:
    memory, hidden_states = tools.lively(written).double(), inputs(6, batch=3)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, 4:], valid[2] = False, False
    after, surprise = memory.step(hidden_states, memory.first_state(hidden_states), valid)
    alone, own = memory.step(hidden_states[1:2, :4], memory.first_state(hidden_states[1:2]), valid[1:2, :4])
    torch.testing.assert_close(surprise[1:2], own, rtol=1e-10, atol=1e-10)
    untouched = memory.first_state(hidden_states)
    for name, tensor in after.items():
        torch.testing.assert_close(tensor[1:2], alone[name], rtol=1e-10, atol=1e-10)
        assert torch.equal(tensor[2], untouched[name][2])
    assert float(surprise[2]) == 0.0


def test_the_slope_of_gelu_is_its_derivative() -> None:
    points = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(points).sum(), points)
    torch.testing.assert_close(gelu_slope(points), expected, rtol=1e-10, atol=1e-12)
