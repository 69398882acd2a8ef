"""What makes sdpa fast changes nothing: queries that meet their windows alone, and heads made as wide as each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eulerstack_mixers.modules import attention_calls
from tests.model.mixers.attention import of
from tests.model.specs import built, changed, tiny_spec, tokens

WINDOWED = {
    "window": {"window": 5},
    "dilated": {"window": 7, "window_mode": "dilated", "window_dilation": 3},
    "latent": {"window": 5, "latent_dim": 12, "rope_head_dim": 4, "v_head_dim": 6},
    "wide_values": {"window": 6, "latent_dim": 12, "rope_head_dim": 4, "v_head_dim": 20},
}


def windowed(name: str, position: str = "rope") -> Any:
    return built(changed(tiny_spec(), {**of(**WINDOWED[name]), "embedding.positional": position})).double()


def in_chunks(monkeypatch: pytest.MonkeyPatch, chunks: bool) -> None:
    monkeypatch.setattr(attention_calls, "LEAST_QUERIES", 1 if chunks else 10**9)


@pytest.mark.parametrize("time", [17, 20, 31])
@pytest.mark.parametrize("name", WINDOWED)
def test_windows_apart_give_the_numbers_of_all_keys(name: str, time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = windowed(name)
    ids = tokens(time=time + 7)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    mask[1, 4:6] = 0
    packed = torch.cat((torch.arange(time), torch.arange(7)))[None]
    results, calls = [], []
    inner = attention_calls.queries_at_once
    monkeypatch.setattr(attention_calls, "queries_at_once", lambda *words: calls.append(inner(*words)) or calls[-1])
    for chunks in (False, True):
        in_chunks(monkeypatch, chunks)
        calls.clear()
        model.zero_grad()
        plain = model(ids, use_cache=False).logits
        apart = model(ids[:1], position_ids=packed, use_cache=False).logits
        (plain.square().sum() + apart.square().sum()).backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        with torch.no_grad():
            padded = model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
            cache = model(ids[:, :3], use_cache=True).past_key_values
            continued = model(ids[:, 3:], past_key_values=cache).logits
            generated = model.generate(ids, max_new_tokens=4, do_sample=False, cache_implementation="static")
        assert (set(calls) - {None} != set()) == chunks
        results.append([plain.detach(), apart.detach(), padded, continued, generated, *gradients])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-9, rtol=1e-9)


def test_biases_of_positions_go_with_their_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = windowed("window", "alibi"), tokens(time=23)
    results = []
    for chunks in (False, True):
        in_chunks(monkeypatch, chunks)
        with torch.no_grad():
            results.append(model(ids, use_cache=False).logits)
    torch.testing.assert_close(results[1], results[0], atol=1e-10, rtol=0)


def _prefix(time: int) -> torch.Tensor:
    visible = torch.ones(time, time).tril().bool()
    visible[:, :9] = True
    return visible[None, None]


@pytest.mark.parametrize("by_layer_type", [False, True], ids=["mask", "masks_by_layer_type"])
@pytest.mark.parametrize("name", ["window", "latent"])
def test_a_mask_of_the_callers_alone_decides_what_is_seen(
    name: str, by_layer_type: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch, True)
    model, ids = windowed(name), tokens(time=23)
    padding = torch.ones(2, 1, 1, 23, dtype=torch.bool)
    padding[0, ..., :4] = False
    for visible in (_prefix(23), padding):
        scores = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, torch.finfo(torch.float64).min)
        mask = dict.fromkeys(model.config.layer_types, scores) if by_layer_type else scores
        results = []
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            with torch.no_grad():
                results.append(model(ids, attention_mask=mask, use_cache=False).logits)
        torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=1e-9)


def test_a_window_makes_the_cost_linear() -> None:
    model = built(changed(tiny_spec(), {**of(window=130), "model.max_seq_len": 4096}))
    flops = []
    for time in (1040, 2080):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(tokens(batch=1, time=time), use_cache=False)
        flops.append(counter.get_total_flops())
    assert flops[1] < 2.2 * flops[0]


def test_latent_heads_never_make_the_matrix_of_scores() -> None:
    from torch.profiler import ProfilerActivity, profile

    model = built(changed(tiny_spec(), of(latent_dim=12, rope_head_dim=4, v_head_dim=6)))
    with profile(activities=[ProfilerActivity.CPU]) as found, torch.no_grad():
        model(tokens(time=40), use_cache=False)
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in {event.key for event in found.key_averages()}
