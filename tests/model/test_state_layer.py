"""The cache layer of states by itself: what it keeps where, and what it can't give back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from eulerstack.hf.cache import StateLayer  # noqa: E402


def filled(max_cache_len: int | None = None) -> StateLayer:
    layer = StateLayer(max_cache_len=max_cache_len)
    layer.put("state", torch.arange(6.0).view(2, 3))
    layer.advance(4)
    return layer


def test_a_state_of_the_same_shape_keeps_its_address_and_is_a_copy() -> None:
    layer, given = filled(), torch.ones(2, 3)
    address = layer.slots["state"].data_ptr()
    layer.put("state", given)
    given.zero_()
    assert layer.slots["state"].data_ptr() == address and bool((layer.get("state") == 1).all())
    layer.put("state", torch.zeros(4, 3))
    assert layer.get("state").shape == (4, 3)


def test_a_state_that_carries_a_gradient_is_kept_as_it_is() -> None:
    layer, given = filled(), torch.ones(2, 3, requires_grad=True)
    layer.put("state", given)
    assert layer.get("state") is given


def test_a_history_grows_to_its_limit_and_is_of_fixed_size_in_a_static_cache() -> None:
    growing, fixed, tokens = StateLayer(), StateLayer(max_cache_len=5), torch.arange(1.0, 5.0).view(1, 4, 1)
    for layer in (growing, fixed):
        layer.put_history("seen", tokens, 9)
        layer.advance(4)
    assert growing.get("seen").flatten().tolist() == [1, 2, 3, 4]
    assert fixed.get("seen").flatten().tolist() == [0, 1, 2, 3, 4]
    growing.put_history("seen", tokens, 2)
    assert growing.get("seen").flatten().tolist() == [3, 4]


def test_a_static_cache_refuses_a_token_that_it_has_no_room_for() -> None:
    layer = StateLayer(max_cache_len=3)
    layer.put_history("seen", torch.ones(1, 3, 1), 9)
    with pytest.raises(RuntimeError, match="no room for another token"):
        layer.put_history("seen", torch.ones(1, 4, 1), 9)
    # What lies behind the limit may go.
    layer.put_history("seen", torch.ones(1, 4, 1), 3)


def test_rows_are_reordered_repeated_and_chosen() -> None:
    layer = filled()
    layer.reorder_cache(torch.tensor([1, 0]))
    assert layer.get("state").tolist() == [[3, 4, 5], [0, 1, 2]]
    layer.batch_repeat_interleave(2)
    assert layer.get("state")[:, 0].tolist() == [3, 3, 0, 0]
    layer.batch_select_indices(torch.tensor([0, 3]))
    assert layer.get("state")[:, 0].tolist() == [3, 0]
    layer.reset()
    assert layer.get("state") is None and int(layer.get_seq_length()) == 0


def test_it_counts_bytes_and_tokens_and_can_not_go_back() -> None:
    layer = filled()
    assert layer.state_bytes == 24 and int(layer.get_seq_length()) == 4
    with pytest.raises(RuntimeError, match="can't be rolled back"):
        layer.crop(1)
