"""What a cache and a mask must never change: the function."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from eulerstack.testing import decoding
from eulerstack.testing.decoding import CHUNKS, PADDED_CHUNKS
from tests.model.specs import built, tokens
from tests.model.variants import CASES, TRANSFORMED, VARIANTS, WITHOUT_STATIC, implementations


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def model(request):
    name, implementation = request.param
    model = built(VARIANTS[name])
    model.set_attn_implementation(implementation)
    return model


def variant_of(request) -> str:
    return request.node.callspec.params["model"][0]


def test_future_tokens_never_change_the_past(model, request) -> None:
    decoding.check_causality(model, exact=variant_of(request) not in TRANSFORMED)


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_decoding_with_a_cache_equals_the_full_forward(model, chunks) -> None:
    decoding.check_cache(model, chunks)


@pytest.mark.parametrize("chunks", PADDED_CHUNKS, ids=str)
def test_left_padding_changes_nothing_with_or_without_a_cache(model, chunks) -> None:
    decoding.check_left_padding(model, chunks)


def test_a_batch_gives_the_numbers_of_its_rows_also_when_they_are_padded_on_the_right(model) -> None:
    decoding.check_rows(model)
    decoding.check_right_padding(model)


def test_generate_gives_the_same_tokens_with_and_without_a_cache(model, request) -> None:
    decoding.check_generation(model, static=variant_of(request) not in WITHOUT_STATIC)


def test_beam_search_gives_the_same_beams_with_and_without_a_cache(model) -> None:
    decoding.check_reordering(model)
    decoding.check_beams(model)


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_sequences_stay_apart(name: str) -> None:
    model = built(VARIANTS[name])
    model.set_attn_implementation(implementations(name)[-1])
    decoding.check_packing(model)


@torch.no_grad()
def test_assisted_decoding_gives_the_greedy_tokens() -> None:
    model, assistant = built(VARIANTS["plain"]), built(VARIANTS["one_layer"])
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, assistant_model=assistant, **options))


@torch.no_grad()
@pytest.mark.parametrize("name", ["retnet", "branched"])
def test_a_cache_without_slots_for_states_is_refused(name: str) -> None:
    model, ids = built(VARIANTS[name]), tokens(batch=1, time=6)
    for cache in (DynamicCache(), DynamicCache(config=built(VARIANTS["plain"]).config)):
        with pytest.raises(ValueError, match=r"DynamicCache\(config=model\.config\)"):
            model(ids, past_key_values=cache)
    assert model(ids, past_key_values=DynamicCache(config=model.config)).past_key_values.get_seq_length() == 6


@torch.no_grad()
@pytest.mark.parametrize("name", ["retnet", "branched"])
def test_a_mask_of_scores_that_states_could_not_follow_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="take no masks of scores"):
        built(VARIANTS[name])(tokens(), attention_mask=torch.ones(2, 1, 17, 17, dtype=torch.bool).tril())
