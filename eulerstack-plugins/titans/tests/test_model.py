"""Memories in a model: how long they live, the step by hand, and what is kept between calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.errors import CompatibilityError
from tests.model.mixers.memory import integrated, memory_spec, neural
from tests.model.specs import built, tokens

OPTIONS = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
TYPES = ("neural_memory", "associative", "retrieval")


def model_with(name: str, persistence: str) -> Any:
    """A lively model whose memories of one type live so long."""
    if name == "neural_memory":
        return built(neural(persistence=persistence))
    return built(memory_spec(name, persistence=persistence))


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor, **words: Any) -> torch.Tensor:
    return model(ids, **words).logits


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("persistence", ["per_query", "session", "persistent"])
def test_forward_passes_never_reach_one_another(name: str, persistence: str) -> None:
    model, ids = model_with(name, persistence), tokens()
    first = logits(model, ids)
    assert torch.equal(logits(model, ids, use_cache=True), first) and torch.equal(logits(model, ids), first)
    assert model.memory_state_dict() == {}


@pytest.mark.parametrize("name", TYPES)
def test_a_session_goes_on_with_its_cache_and_a_query_does_not(name: str) -> None:
    ids, more = tokens(time=7), tokens(time=5, seed=1)
    found = {}
    for persistence in ("session", "per_query"):
        model = model_with(name, persistence)
        first = model.generate(ids, **OPTIONS)
        longer = torch.cat((first.sequences, more), dim=1)
        later = model.generate(longer, past_key_values=first.past_key_values, output_logits=True, **OPTIONS)
        found[persistence] = later.logits[0]
        if persistence == "session":
            torch.testing.assert_close(later.logits[0], logits(model, longer)[:, -1], atol=1e-4, rtol=1e-4)
    assert (found["session"] - found["per_query"]).abs().max() > 1e-4


@pytest.mark.parametrize("name", TYPES)
def test_what_persists_is_what_one_long_sequence_would_remember(name: str) -> None:
    model, ids = model_with(name, "persistent"), tokens(time=7)
    fresh = logits(model, ids)
    generated = model.generate(ids, **OPTIONS)
    cache = generated.past_key_values
    for report, memory in model.memories().items():
        for key, state in cache.layers[memory.layer_idx].slots.items():
            # Another sequence begins another mini-batch.
            if name != "neural_memory" or not key.startswith(("anchor", "tokens")):
                assert torch.equal(model.memory_state_dict()[f"{report}.{key}"], state)
    assert (logits(model, ids) - fresh).abs().max() > 1e-4
    remembered = model.memory_state_dict()
    model.generate(ids, **OPTIONS)
    assert any(not torch.equal(state, remembered[name]) for name, state in model.memory_state_dict().items())
    # Training begins as learned, whatever is held.
    torch.testing.assert_close(logits(model.train(), ids), fresh)
    model.eval().reset_memory()
    assert torch.equal(logits(model, ids), fresh)


@pytest.mark.parametrize("name", TYPES)
def test_cached_decoding_with_what_is_held_equals_the_full_pass(name: str) -> None:
    model, ids = model_with(name, "persistent"), tokens(time=19)
    model.generate(tokens(time=9, seed=3), **OPTIONS)
    whole, cache, parts = logits(model, ids), None, []
    for piece in ids.split([3, 1, 1, 9, 5], dim=1):
        with torch.no_grad():
            output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_rows_keep_to_their_own_memory(name: str) -> None:
    first, second = tokens(batch=1, time=8, seed=1), tokens(batch=1, time=8, seed=2)
    together = model_with(name, "persistent")
    together.generate(torch.cat((first, second)), **OPTIONS)
    ids = tokens(batch=1, time=6, seed=3)
    rows = logits(together, ids.expand(2, -1))
    for row, told in enumerate((first, second)):
        alone = model_with(name, "persistent")
        alone.generate(told, **OPTIONS)
        torch.testing.assert_close(logits(alone, ids)[0], rows[row], atol=3e-5, rtol=1e-5)
        # One row may be the beginning of several.
        torch.testing.assert_close(logits(alone, ids.expand(3, -1))[2], rows[row], atol=3e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="holds 2 rows and is given 3"):
        together(ids.expand(3, -1))


@pytest.mark.parametrize(
    "words", [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}, {"use_cache": False}], ids=str
)
def test_generation_that_no_row_can_go_on_from_is_refused(words: dict[str, Any]) -> None:
    model = model_with("associative", "persistent")
    with pytest.raises(ValueError, match=next(iter(words))):
        model.generate(tokens(time=5), **{**OPTIONS, **words})
    model_with("associative", "session").generate(tokens(time=5), **{**OPTIONS, **words})


def test_phases_that_begin_anew_are_refused_with_a_persistent_memory() -> None:
    modes = [
        {"name": "think", "max_tokens": 3, "kv_share": False, "visible_to_user": False},
        {"name": "answer", "max_tokens": 3},
    ]
    spec = memory_spec("associative", persistence="persistent")
    phased = {**spec, "execution_modes": modes, "transition": {"type": "budget_exhausted"}}
    with pytest.raises(ValueError, match="kv_share"):
        built(phased).generate(tokens(time=5), **OPTIONS)
    phased["execution_modes"][0]["kv_share"] = True
    model = built(phased)
    model.generate(tokens(time=5), **OPTIONS)
    assert model.memory_state_dict()


def test_every_evaluation_of_a_layer_has_a_memory_of_its_own() -> None:
    model, ids = built(integrated("ode_euler", persistence="per_query")), tokens(time=7)
    (memory,) = model.memories().values()
    assert memory.own_slots == [2, 4] and model.config.layer_types[1:5] == ["full_attention", "eulerstack_state"] * 2
    first = model.generate(ids, **OPTIONS)
    slots = [first.past_key_values.layers[slot] for slot in memory.own_slots]
    assert not torch.equal(slots[0].get("weight_0"), slots[1].get("weight_0"))
    before = [slot.get("weight_0").clone() for slot in slots]
    assert len(model.step_memory_at_inference(torch.randn(2, 3, 36), past_key_values=first.past_key_values)) == 1
    assert all(not torch.equal(slot.get("weight_0"), state) for slot, state in zip(slots, before, strict=True))
    # A new query forgets all of them.
    longer = torch.cat((first.sequences, tokens(time=5, seed=1)), dim=1)
    later = model.generate(longer, past_key_values=first.past_key_values, output_logits=True, **OPTIONS)
    again = model.generate(ids, **OPTIONS)
    same = model.generate(longer, past_key_values=again.past_key_values, output_logits=True, **OPTIONS)
    assert torch.equal(later.logits[0], same.logits[0])


def test_a_layer_of_several_evaluations_can_keep_no_memory_for_good() -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(integrated("ode_rk4", persistence="persistent"))
    assert [each.path for each in caught.value.diagnostics] == ["layer_templates.decoder.memory.persistence"]
    es.validate_v2(integrated("discrete", persistence="persistent"))


def test_packed_rows_are_refused_where_something_is_held() -> None:
    model, ids = model_with("associative", "persistent"), tokens(batch=1, time=9)
    positions = torch.cat((torch.arange(4), torch.arange(5)))[None]
    model(ids, position_ids=positions, use_cache=False)
    model.generate(ids, **OPTIONS)
    with pytest.raises(ValueError, match="several sequences"):
        model(ids, position_ids=positions, use_cache=False)


def test_the_step_of_the_seed() -> None:
    model, ids = built(neural()), tokens(batch=1, time=9)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    out = model(ids, output_hidden_states=True)
    surprise = model.step_memory_at_inference(out.hidden_states[-1])
    assert list(surprise) == [f"eulerstack.layers.{layer}.titans_memory" for layer in range(3)]
    assert all(isinstance(value, float) and value > 0 for value in surprise.values())
    later = [model.step_memory_at_inference(out.hidden_states[-1]) for _ in range(5)]
    assert sum(later[-1].values()) < sum(surprise.values())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert (logits(model, ids) - out.logits).abs().max() > 1e-4
    model.reset_memory()
    assert model.step_memory_at_inference(out.hidden_states[-1]) == surprise


@pytest.mark.parametrize("name", TYPES)
def test_a_step_lands_where_the_memory_lives(name: str) -> None:
    ids, hidden_states = tokens(time=9), torch.randn(2, 6, 36, generator=torch.Generator().manual_seed(1))
    for persistence in ("per_query", "session", "persistent"):
        model = model_with(name, persistence)
        fresh = logits(model, ids)
        surprise = model.step_memory_at_inference(hidden_states)
        moved = not torch.equal(logits(model, ids), fresh)
        assert moved is (persistence != "per_query")
        assert (model.step_memory_at_inference(hidden_states) == surprise) is (persistence == "per_query")
        model.reset_memory()
        with torch.no_grad():
            cache = model(ids[:, :5], use_cache=True).past_key_values
            model.step_memory_at_inference(hidden_states, past_key_values=cache)
            rest = model(ids[:, 5:], past_key_values=cache).logits
        assert (rest - fresh[:, 5:]).abs().max() > 1e-4 and model.memory_state_dict() == {}


def test_padding_is_no_part_of_a_step() -> None:
    hidden_states = torch.randn(2, 6, 36, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]])
    surprises = [
        built(neural()).step_memory_at_inference(hidden_states, attention_mask=mask),
        built(neural()).step_memory_at_inference(hidden_states[:, :4]),
    ]
    assert surprises[0] == pytest.approx(surprises[1], rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 36), (2, 3, 35), (2, 0, 36)], ids=str)
def test_a_step_on_what_are_no_hidden_states_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="hidden states are"):
        built(neural()).step_memory_at_inference(torch.zeros(shape))


def test_a_model_whose_memories_are_never_written_has_nothing_to_step() -> None:
    model = built(memory_spec("neural_memory", update_at_inference=False))
    with pytest.raises(ValueError, match="no memory of this model"):
        model.step_memory_at_inference(torch.zeros(1, 2, 36))


def test_what_is_held_is_saved_by_name_and_never_with_the_weights(tmp_path: Path) -> None:
    model, ids = model_with("neural_memory", "persistent"), tokens()
    names = set(model.state_dict())
    model.generate(ids, **OPTIONS)
    expected = logits(model, ids)
    assert set(model.state_dict()) == names
    held = model.memory_state_dict()
    assert all(state.shape[0] == 2 and not state.requires_grad for state in held.values())
    torch.save(held, tmp_path / "memory.pt")
    other = model_with("neural_memory", "persistent")
    other.load_memory_state_dict(torch.load(tmp_path / "memory.pt"))
    assert torch.equal(logits(other, ids), expected)
    with pytest.raises(KeyError):
        other.load_memory_state_dict({"eulerstack.layers.9.titans_memory.weight_0": torch.zeros(1)})


def test_generate_takes_embeddings_as_ever() -> None:
    model, ids = model_with("associative", "persistent"), tokens(time=6)
    embedded = model.get_input_embeddings()(ids).detach()
    assert torch.equal(
        model.generate(inputs_embeds=embedded, **OPTIONS).sequences,
        model_with("associative", "persistent").generate(ids, **OPTIONS).sequences[:, 6:],
    )


def test_outer_gradients_reach_every_weight_of_a_memory() -> None:
    for name in TYPES:
        model, ids = model_with(name, "session").train(), tokens()
        model(ids, labels=ids, use_cache=False).loss.backward()
        for full, parameter in model.named_parameters():
            if ".memory." in full:
                assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, full
