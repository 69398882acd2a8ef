"""FLOPs and cache bytes against a count of every token and every matrix."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerstack.compiler.cost import LayerCost, ModelCost, model_cost
from eulerstack.ir import normalize_to_ir
from eulerstack.plugins import Cost
from tests.ir.strategies import decoder, minimal

QUERIES, KEYS, D_MODEL, D_FF, VOCAB = 4 * 8, 2 * 8, 32, 100, 50
PROJECTIONS = D_MODEL * (2 * QUERIES + 2 * KEYS)


def priced(window: int | None = None, dtype: str = "bfloat16", **attention: Any) -> ModelCost:
    template = decoder(mixer={"type": "attention", "attention": {"window": window, **attention}})
    spec = minimal(model={"n_kv_heads": 2, "d_ff": D_FF, "dtype": dtype}, layer_templates={"decoder": template})
    return model_cost(normalize_to_ir(spec))


def test_a_decoded_token_costs_two_per_weight_and_four_per_head_channel_it_sees() -> None:
    layer = 2 * PROJECTIONS + 2 * 3 * D_MODEL * D_FF + 4 * QUERIES * 10
    assert priced().flops_per_token(10) == 2 * layer + 2 * VOCAB * D_MODEL


@given(context=st.integers(1, 200), window=st.none() | st.integers(2, 50))
@settings(max_examples=30, deadline=None)
def test_a_prefill_is_the_sum_of_its_tokens(context: int, window: int | None) -> None:
    cost = priced(window)
    assert cost.prefill_flops(context) == sum(cost.flops_per_token(seen) for seen in range(1, context + 1))
    assert cost.flops_per_token(context, "prefill") == pytest.approx(cost.prefill_flops(context) / context)


def test_a_window_caps_what_a_token_pays() -> None:
    cost = priced(window=16)
    assert cost.flops_per_token(16) == cost.flops_per_token(10_000)
    assert cost.flops_per_token(15) < cost.flops_per_token(16)


@pytest.mark.parametrize(("dtype", "element_bytes"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_the_cache_holds_keys_and_values_of_every_token(dtype: str, element_bytes: int) -> None:
    assert priced(dtype=dtype).cache_bytes(context=10, batch=3) == 3 * 2 * 10 * 2 * KEYS * element_bytes


def test_a_windows_cache_stops_one_token_short_of_the_window() -> None:
    cost = priced(window=16)
    assert cost.cache_bytes(15) == cost.cache_bytes(10_000) == 2 * 15 * 2 * KEYS * 2
    assert cost.cache_bytes(14) == 2 * 14 * 2 * KEYS * 2


def test_biases_and_norms_cost_no_flops() -> None:
    assert priced(qkv_bias=True, o_bias=True, qk_norm="full").flops_per_token(10) == priced().flops_per_token(10)


def test_a_mixer_that_reads_a_sequence_in_another_form_says_what_that_costs() -> None:
    mixer = Cost(flops_per_token_per_context=6, prefill_flops=lambda tokens: 100 * tokens)
    layer = LayerCost(mixer, Cost(), (), Cost())
    cost = ModelCost(0, Cost(), (layer,), 0, Cost())
    assert cost.prefill_flops(1024) == 100 * 1024
    assert cost.flops_per_token(1024) == 6 * 1024
    assert cost.prefill_flops(0) == 0
