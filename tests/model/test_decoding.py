"""What a cache and a mask must never change: the function."""

from __future__ import annotations

import pytest
import torch

from tests.model.specs import built, tokens
from tests.model.variants import CASES, TRANSFORMED, VARIANTS, WITHOUT_STATIC, implementations

TOLERANCE = 1e-5


def far_apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference, relative to logits of unit scale."""
    return float((first - second).detach().abs().max() / second.detach().abs().max().clamp(min=1.0))


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def model(request):
    name, implementation = request.param
    model = built(VARIANTS[name])
    model.set_attn_implementation(implementation)
    return model


@torch.no_grad()
def test_future_tokens_never_change_the_past(model, request) -> None:
    ids = tokens()
    altered = ids.clone()
    altered[:, 11] = (altered[:, 11] + 1) % model.config.vocab_size
    before, after = model(ids, use_cache=False).logits, model(altered, use_cache=False).logits
    if request.node.callspec.params["model"][0] in TRANSFORMED:
        assert far_apart(before[:, :11], after[:, :11]) < 1e-6
    else:
        assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.equal(before[:, 11], after[:, 11])


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(1,) * 17, (5, 12), (1, 3, 1, 7, 2, 3), (16, 1)], ids=str)
def test_decoding_with_a_cache_equals_the_full_forward(model, chunks) -> None:
    ids = tokens()
    full = model(ids, use_cache=False).logits
    cache, parts, start = None, [], 0
    for length in chunks:
        output = model(ids[:, start : start + length], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
        start += length
    assert far_apart(torch.cat(parts, 1), full) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(22,), (1,) * 22, (3, 6, 13)], ids=str)
def test_left_padding_changes_nothing_with_or_without_a_cache(model, chunks) -> None:
    ids = tokens()
    full = model(ids, use_cache=False).logits
    ragged = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids], 1)
    mask = torch.ones_like(ragged)
    mask[:, :5] = 0
    # The second row has fewer tokens: its padding reaches further.
    ragged[1, 5:9], mask[1, 5:9] = 0, 0
    short = model(ids[1:, 4:], use_cache=False).logits
    cache, parts, start = None, [], 0
    for length in chunks:
        end = start + length
        output = model(
            ragged[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=len(chunks) > 1
        )
        cache = output.past_key_values
        parts.append(output.logits)
        start = end
    logits = torch.cat(parts, 1)
    assert far_apart(logits[0, 5:], full[0]) < TOLERANCE
    assert far_apart(logits[1, 9:], short[0]) < TOLERANCE


@torch.no_grad()
def test_a_batch_gives_the_numbers_of_its_rows(model) -> None:
    ids = tokens(batch=3)
    together = model(ids, use_cache=False).logits
    for row in range(3):
        assert far_apart(model(ids[row : row + 1], use_cache=False).logits[0], together[row]) < TOLERANCE


@torch.no_grad()
def test_generate_gives_the_same_tokens_with_and_without_a_cache(model, request) -> None:
    ids = tokens(time=6)
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    static = {"cache_implementation": "static", "disable_compile": True}
    if request.node.callspec.params["model"][0] in WITHOUT_STATIC:
        with pytest.raises(ValueError, match="use the default cache instead of a static one"):
            model.generate(ids, **static, **options)
    else:
        assert torch.equal(cached, model.generate(ids, **static, **options))


@torch.no_grad()
def test_beam_search_gives_the_same_beams_with_and_without_a_cache(model) -> None:
    ids = tokens(time=6)
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_sequences_stay_apart(name: str) -> None:
    model = built(VARIANTS[name])
    model.set_attn_implementation(implementations(name)[-1])
    first, second = tokens(batch=1, time=9, seed=1), tokens(batch=1, time=7, seed=2)
    positions = torch.cat([torch.arange(9), torch.arange(7)])[None]
    packed = model(torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits
    packed[:, -7:].square().sum().backward()
    gradients = {
        key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    assert far_apart(packed[:, :9], model(first, use_cache=False).logits) < TOLERANCE
    alone = model(second, use_cache=False).logits
    assert far_apart(packed[:, 9:], alone) < TOLERANCE
    alone.square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = max(1.0, float(parameter.grad.abs().max()))
            assert (gradients[key] - parameter.grad).abs().max() < 1e-4 * scale, key


@torch.no_grad()
def test_assisted_decoding_gives_the_greedy_tokens() -> None:
    model, assistant = built(VARIANTS["plain"]), built(VARIANTS["one_layer"])
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, assistant_model=assistant, **options))
