"""The layer as part of a model: its state, its precision, its parameters, long and packed and padded inputs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eulerstack.hf.cache import StateLayer
from eulerstack.plugins import Dims
from eulerstack_ttt.declarations.ttt import TTT_LAYER
from eulerstack_ttt.modules.ttt import gelu_tanh_slope

DIMS = Dims(
    d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, d_ff=50, vocab_size=50, max_seq_len=64, norm_eps=1e-5,
    positional="rope",
)  # fmt: skip
MLP = {"type": "mlp", "hidden": 9}
WORDS: dict[str, dict[str, Any]] = {
    "linear": {"mini_batch": 4},
    "mlp": {"inner_model": MLP, "mini_batch": 5, "inner_lr": 0.5},
    "online": {"mini_batch": 1},
    "steps": {"inner_steps_per_token": 2, "inner_lr": 0.5},
    "adamw": {"inner_optimizer": "adamw", "inner_lr": 0.02},
    "mlp-adamw-steps": {"inner_model": MLP, "inner_optimizer": "adamw", "inner_steps_per_token": 2, "inner_lr": 0.02},
}
every_kind = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)


def inputs(time: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, time, 24, dtype=dtype, generator=torch.Generator().manual_seed(time))


def new_cache() -> Any:
    return SimpleNamespace(layers=[StateLayer()])


def decoded(layer: torch.nn.Module, hidden_states: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, StateLayer]:
    cache = new_cache()
    pieces = [layer(piece, past_key_values=cache) for piece in hidden_states.split(lengths, dim=1)]
    return torch.cat(pieces, dim=1), cache.layers[0]


@every_kind
@pytest.mark.parametrize("lengths", [[1] * 17, [5, 12], [1, 3, 1, 7, 2, 3], [16, 1], [4, 4, 4, 5]], ids=str)
@torch.no_grad()
def test_chunks_of_any_length_give_the_full_forward(
    words: dict[str, Any], lengths: list[int], lively_layer: Callable
) -> None:
    layer, hidden_states = lively_layer(**words).double(), inputs(17)
    torch.testing.assert_close(decoded(layer, hidden_states, lengths)[0], layer(hidden_states), rtol=1e-11, atol=1e-11)


@every_kind
@pytest.mark.parametrize("time", [1, 4, 11])
@torch.no_grad()
def test_the_state_has_the_declared_bytes_whatever_the_length(
    words: dict[str, Any], time: int, lively_layer: Callable, params: Callable
) -> None:
    declared = TTT_LAYER.cost(DIMS, params(**words), 2)
    for layer, dtype in (
        (lively_layer(**words), torch.float32),
        (lively_layer(**words).to(torch.bfloat16), torch.bfloat16),
    ):
        state = decoded(layer, inputs(time, batch=3, dtype=dtype), [time])[1]
        assert state.state_bytes == 3 * declared.state_bytes_fixed
        assert declared.state_bytes_per_token == 0


@every_kind
@torch.no_grad()
def test_a_forward_needs_no_autograd_and_leaves_the_parameters_alone(
    words: dict[str, Any], lively_layer: Callable
) -> None:
    layer = lively_layer(**words)
    before = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    first = layer(inputs(9, dtype=torch.float32))
    decoded(layer, inputs(9, dtype=torch.float32), [4, 5])
    assert torch.equal(layer(inputs(9, dtype=torch.float32)), first)
    assert all(torch.equal(before[name], parameter) for name, parameter in layer.named_parameters())
    assert not any(parameter.grad is not None for parameter in layer.parameters())


@every_kind
@torch.no_grad()
def test_reading_changes_the_fast_weights_so_that_they_fit_what_was_read(
    words: dict[str, Any], initial_layer: Callable
) -> None:
    layer = initial_layer(**words)
    _, state = decoded(layer, inputs(1, dtype=torch.float32).expand(-1, 40, -1), [40])
    assert (state.get("weight_0") - layer.inner_weights[0]).abs().max() > 1e-3
    keys, values = (
        projection(inputs(1, dtype=torch.float32)).view(2, 1, 3, 8).transpose(1, 2)
        for projection in (layer.k_proj, layer.v_proj)
    )

    def loss(weights: list[torch.Tensor], biases: list[torch.Tensor]) -> float:
        states = keys
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            states = states @ weight + bias
            if index < len(weights) - 1:
                states = torch.nn.functional.gelu(states, approximate="tanh")
        normal = torch.nn.functional.layer_norm(states, (8,), eps=layer.eps)
        return float((normal - (values - keys)).square().sum())

    names = range(len(layer.inner_weights))
    after = loss([state.get(f"weight_{i}") for i in names], [state.get(f"bias_{i}") for i in names])
    assert after < loss(list(layer.inner_weights), list(layer.inner_biases))


@every_kind
@torch.no_grad()
def test_padding_anywhere_neither_enters_nor_moves_the_place_in_a_mini_batch(
    words: dict[str, Any], lively_layer: Callable
) -> None:
    layer, hidden_states = lively_layer(**words).double(), inputs(13)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0]])
    hidden_states[mask == 0] = 1e3
    padded = layer(hidden_states, attention_mask=mask)
    cache = new_cache()
    chunked = torch.cat(
        [
            layer(piece, attention_mask=part, past_key_values=cache)
            for piece, part in zip(hidden_states.split([1, 4, 1, 7], 1), mask.split([1, 4, 1, 7], 1), strict=True)
        ],
        dim=1,
    )
    for row in range(2):
        alone = layer(hidden_states[row : row + 1, mask[row] == 1])[0]
        torch.testing.assert_close(padded[row, mask[row] == 1], alone, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(chunked[row, mask[row] == 1], alone, rtol=1e-11, atol=1e-11)
    assert torch.isfinite(padded).all()


@every_kind
def test_packed_sequences_give_the_numbers_and_gradients_of_separate_ones(
    words: dict[str, Any], lively_layer: Callable
) -> None:
    layer, hidden_states = lively_layer(**words).double(), inputs(17)
    # The two rows are cut at different places; a sequence may be a single token.
    cuts = [[5, 1, 8, 3], [4, 4, 9]]
    ids = torch.stack([torch.repeat_interleave(torch.tensor(cut)) for cut in cuts])
    packed = layer(hidden_states, sequence_ids=ids)
    alone = torch.stack(
        [
            torch.cat([layer(piece[None])[0] for piece in row.split(cut)])
            for row, cut in zip(hidden_states, cuts, strict=True)
        ]
    )
    torch.testing.assert_close(packed, alone, rtol=1e-11, atol=1e-11)
    wanted = list(layer.parameters())
    found = torch.autograd.grad(packed.square().sum(), wanted)
    for ours, theirs in zip(found, torch.autograd.grad(alone.square().sum(), wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@every_kind
def test_bfloat16_trains_its_fast_weights_in_float32(words: dict[str, Any], lively_layer: Callable) -> None:
    exact, half = lively_layer(**words), lively_layer(**words).to(torch.bfloat16)
    hidden_states = inputs(33, dtype=torch.float32)
    expected, actual = exact(hidden_states), half(hidden_states.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).norm() / expected.norm() < 0.05
    actual.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in half.parameters())
    with torch.no_grad():
        state = decoded(half, hidden_states.bfloat16(), [33])[1]
    assert state.get("weight_0").dtype == torch.float32


@every_kind
def test_autocast_leaves_the_inner_training_in_float32(words: dict[str, Any], lively_layer: Callable) -> None:
    layer, hidden_states = lively_layer(**words), inputs(9, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cache = new_cache()
        actual = layer(hidden_states, past_key_values=cache)
        assert cache.layers[0].get("weight_0").dtype == torch.float32
    with torch.no_grad():
        expected = layer(hidden_states)
    assert (actual.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("words", [{}, {"inner_model": {"type": "mlp"}}, {"inner_optimizer": "adamw"}], ids=str)
def test_a_long_input_stays_finite_forward_and_backward(words: dict[str, Any], initial_layer: Callable) -> None:
    layer, hidden_states = initial_layer(**words), inputs(1024, batch=1, dtype=torch.float32).requires_grad_()
    outputs = layer(hidden_states)
    outputs.square().mean().backward()
    assert torch.isfinite(outputs).all() and torch.isfinite(hidden_states.grad).all()
    # The post-norm makes the size of the output the same from the first token to the last.
    assert 0.5 < float((outputs[:, -64:].norm() / outputs[:, :64].norm()).detach()) < 2.0


def test_fast_weights_begin_small_and_not_at_zero(initial_layer: Callable) -> None:
    layer = initial_layer(inner_model=MLP)
    for weight in layer.inner_weights:
        assert 0.01 < float(weight.detach().std()) < 0.03
    assert float(layer.token_rate.detach().abs().max()) == 0.0
    assert torch.equal(layer.inner_norm_weight, torch.ones_like(layer.inner_norm_weight))


@pytest.mark.parametrize("words", [WORDS["linear"], WORDS["adamw"]], ids=["linear", "adamw"])
@torch.no_grad()
def test_it_compiles_into_one_graph_where_nothing_is_packed(words: dict[str, Any], lively_layer: Callable) -> None:
    layer, hidden_states = lively_layer(**words), inputs(9, dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(hidden_states), layer(hidden_states), rtol=1e-5, atol=1e-5)
    cache = new_cache()
    layer(hidden_states[:, :5], past_key_values=cache)
    step = [compiled(hidden_states[:, time : time + 1], past_key_values=cache) for time in range(5, 9)]
    torch.testing.assert_close(torch.cat(step, 1), layer(hidden_states)[:, 5:], rtol=1e-4, atol=1e-4)


def test_the_slope_of_gelu_is_its_derivative() -> None:
    points = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(points, approximate="tanh").sum(), points)
    torch.testing.assert_close(gelu_tanh_slope(points), expected, rtol=1e-10, atol=1e-12)
