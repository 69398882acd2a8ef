"""Generation in phases: as a plain loop over single tokens would do it, and through all of transformers' ways."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.streamers import BaseStreamer

import eulerstack as es
from eulerstack.compiler.tokenizer import copy_tokenizer, find_tokenizer
from eulerstack.errors import CompileError
from tests.model.specs import VOCAB, built, changed, tiny_spec, tokens
from tests.model.test_export import PYTHON_OF_OLDEST
from tests.model.variants import VARIANTS

HIDDEN = {"visible_to_user": False}
ALONE = {"kv_share": False}
EACH = {"per_token_rationale": True}


def mode(name: str, max_tokens: int, **words: Any) -> dict[str, Any]:
    return {"name": name, "max_tokens": max_tokens, **words}


THINK, ANSWER = mode("think", 6, **HIDDEN), mode("answer", 5)
PROGRAMS = {
    "one": [ANSWER],
    "two": [THINK, ANSWER],
    "three": [mode("plan", 3), THINK, ANSWER],
    "alone": [{**THINK, **ALONE}, ANSWER],
    "all_alone": [mode("plan", 3, **ALONE), {**THINK, **ALONE}, mode("check", 2), ANSWER],
    "rationale": [mode("why", 3, **HIDDEN, **EACH), ANSWER],
    "rationale_alone": [mode("why", 3, **HIDDEN, **EACH, **ALONE), ANSWER],
    "rationales": [THINK, mode("why", 2, **EACH), mode("say", 3, **ALONE), mode("how", 2, **EACH, **ALONE), ANSWER],
}
IN_ONE_RUN = [name for name, modes in PROGRAMS.items() if all(each.get("kv_share", True) for each in modes[:-1])]
STOP, TRANSITION = 11, 7


def phased(modes: list[dict[str, Any]], special: bool = True, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """A tiny spec of these phases."""
    spec = {**(tiny_spec() if base is None else base), "execution_modes": modes}
    if special and len(modes) > 1:
        spec["transition"] = {"type": "special_token", "token": "<think_end>"}
    return spec


def model_of(modes: list[dict[str, Any]], special: bool = True, base: dict[str, Any] | None = None) -> Any:
    """A lively model that knows its tokens. Its head likes what ends things, so that budgets are not all that does."""
    model = built(phased(modes, special, base))
    if special and len(modes) > 1:
        model.generation_config.transition_token_id = TRANSITION
    model.generation_config.eos_token_id = STOP
    model.generation_config.pad_token_id = 0
    return model


class Naive:
    """Phases as their definition has them: one sequence, one token after another, the whole context each time."""

    def __init__(self, model: Any, transition: int | None):
        self.model, self.transition = model, transition
        self.modes = model.config.architecture["execution_modes"]
        self.all: list[tuple[int, int]] = []

    def choose(self, context: list[int], last: bool, forced: bool) -> int:
        """The best token; none that ends the text unless this is the last phase."""
        if forced and self.transition is not None and not last:
            return self.transition
        with torch.no_grad():
            logits = self.model(torch.tensor([context])).logits[0, -1].clone()
        if not last:
            logits[STOP] = -torch.inf
        return int(logits.argmax())

    def one(self, index: int, context: list[tuple[int, int]], spent: int) -> tuple[int, bool]:
        """One more token of phase `index`, and whether it ends the phase."""
        last = index == len(self.modes) - 1
        budget = self.modes[index]["max_tokens"]
        token = self.choose([each for each, _ in context], last, forced=spent + 1 == budget)
        context.append((token, index))
        self.all.append((token, index))
        ends = token == STOP if last else token == self.transition
        return token, ends or spent + 1 == budget

    def drop(self, context: list[tuple[int, int]], index: int) -> list[tuple[int, int]]:
        """The context without a phase, but for the token that has just ended it."""
        last = context[-1]
        keep = last[1] == index and last[0] == self.transition
        return [each for each in context if each[1] != index] + ([last] if keep else [])

    def run(self, prompt: list[int]) -> list[tuple[int, int]]:
        context = [(token, -1) for token in prompt]
        rationale: int | None = None
        for index, each in enumerate(self.modes):
            if each["per_token_rationale"]:
                rationale = index
                continue
            spent, ended = 0, False
            while not ended:
                if rationale is not None:
                    thought, over = 0, False
                    while not over:
                        _, over = self.one(rationale, context, thought)
                        thought += 1
                token, ended = self.one(index, context, spent)
                spent += 1
                if rationale is not None and not self.modes[rationale]["kv_share"]:
                    *before, newest = context
                    context = [pair for pair in before if pair[1] != rationale] + [newest]
            if not each["kv_share"]:
                context = self.drop(context, index)
            rationale = None
        return self.all


def check_against_naive(model: Any, ids: torch.Tensor, transition: int | None, lengths: list[int]) -> set[int]:
    """Compares batched, left-padded generation with the naive loop; returns the steps at which phases changed."""
    batch = torch.zeros_like(ids)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        batch[row, -length:] = ids[row, :length]
        mask[row, -length:] = 1
    found = model.generate(batch, attention_mask=mask, return_dict_in_generate=True)
    changes = set()
    for row, length in enumerate(lengths):
        expected = Naive(model, transition).run(ids[row, :length].tolist())
        generated = found.full_sequences[row, ids.shape[1] :].tolist()
        phases = found.phase_ids[row, ids.shape[1] :].tolist()
        assert list(zip(generated, phases, strict=True))[: len(expected)] == expected
        assert set(phases[len(expected) :]) <= {-1} and set(generated[len(expected) :]) <= {0}
        modes = model.config.architecture["execution_modes"]
        visible = [token for token, phase in expected if modes[phase]["visible_to_user"]]
        shown = found.sequences[row, ids.shape[1] :].tolist()
        assert shown[: len(visible)] == visible and set(shown[len(visible) :]) <= {0}
        changes.add(sum(phase == 0 for _, phase in expected))
    assert (found.phase_ids[:, : ids.shape[1]] == -1).all()
    return changes


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_batch_goes_through_its_phases_as_single_sequences_do(name: str, special: bool) -> None:
    model = model_of(PROGRAMS[name], special)
    transition = TRANSITION if special and len(PROGRAMS[name]) > 1 else None
    if transition is not None:
        # A token that some sequences choose by themselves, and others do not.
        free = Naive(model, None).run(tokens(4, 8)[0].tolist())
        transition = free[1][0]
        model.generation_config.transition_token_id = transition
    check_against_naive(model, tokens(4, 8), transition, [8, 5, 8, 3])


def test_rows_of_a_batch_change_phase_at_different_steps() -> None:
    model = model_of(PROGRAMS["two"])
    transition = Naive(model, None).run(tokens(4, 8)[0].tolist())[1][0]
    model.generation_config.transition_token_id = transition
    assert len(check_against_naive(model, tokens(4, 8), transition, [8, 5, 8, 3])) > 1


@pytest.mark.parametrize("program", ["two", "alone", "rationale_alone"])
@pytest.mark.parametrize("variant", ["window", "mamba_and_attention", "learned"])
def test_every_kind_of_cache_goes_along(program: str, variant: str) -> None:
    model = model_of(PROGRAMS[program], base=VARIANTS[variant])
    check_against_naive(model, tokens(3, 8), TRANSITION, [8, 4, 6])


def test_a_text_that_ends_in_the_last_phase_is_over() -> None:
    model = model_of(PROGRAMS["two"])
    free = Naive(model, TRANSITION).run(tokens(2, 8)[0].tolist())
    stop = next(token for token, phase in free if phase == 1)
    model.generation_config.eos_token_id = stop
    found = model.generate(tokens(2, 8), visible_only=False)[0, 8:].tolist()
    assert stop not in found[: found.index(TRANSITION)]
    after = found[found.index(TRANSITION) + 1 :]
    assert stop in after and set(after[after.index(stop) + 1 :]) <= {0}


class Collects(BaseStreamer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.put_values: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.put_values.append(value)

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_streamer_is_given_the_prompt_and_the_visible_tokens_alone(name: str) -> None:
    model, ids, streamer = model_of(PROGRAMS[name]), tokens(1, 8), Collects()
    returned = model.generate(ids, streamer=streamer)
    assert torch.equal(torch.cat([value.flatten() for value in streamer.put_values]), returned[0])
    assert torch.equal(streamer.put_values[0], ids) and streamer.ended == 1


def test_a_streamer_of_a_batch_is_given_fill_for_hidden_rows() -> None:
    model, streamer = model_of(PROGRAMS["two"]), Collects()
    found = model.generate(tokens(3, 8), streamer=streamer, return_dict_in_generate=True)
    hidden = found.phase_ids[:, 8:] == 0
    steps = found.full_sequences[:, 8:].masked_fill(hidden, 0)[:, ~hidden.all(0)]
    assert torch.equal(torch.stack(streamer.put_values[1:], dim=1), steps)


def test_the_whole_is_there_on_request() -> None:
    model, ids = model_of(PROGRAMS["two"]), tokens(2, 8)
    found = model.generate(ids, return_dict_in_generate=True, output_scores=True, output_logits=True)
    assert torch.equal(model.generate(ids), found.sequences)
    assert torch.equal(model.generate(ids, visible_only=False), found.full_sequences)
    assert len(found.scores) == len(found.logits) == found.full_sequences.shape[1] - 8
    assert torch.equal(torch.stack(found.scores, 1).argmax(-1)[0], found.full_sequences[0, 8:])


def test_scores_of_several_runs_are_those_of_the_full_sequences() -> None:
    model, ids = model_of(PROGRAMS["all_alone"]), tokens(3, 8)
    found = model.generate(ids, return_dict_in_generate=True, output_scores=True, output_logits=True)
    best = torch.stack(found.scores, 1).argmax(-1)
    there = found.phase_ids[:, 8:] >= 0
    assert torch.equal(best[there], found.full_sequences[:, 8:][there])
    assert len(found.logits) == len(found.scores)


@pytest.mark.parametrize("name", ["two", "alone", "rationale_alone"])
def test_limits_of_the_caller_count_all_tokens(name: str) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(2, 8)
    full = model.generate(ids, visible_only=False)
    for words in ({"max_new_tokens": 4}, {"max_length": 12}, {"generation_config": GenerationConfig(max_length=12)}):
        assert torch.equal(model.generate(ids, visible_only=False, **words), full[:, :12]), words
    if name != "rationale_alone":
        stop = model.generate(ids, visible_only=False, stopping_criteria=[lambda ids, scores: ids.shape[1] >= 11])
        assert torch.equal(stop, full[:, :11])


def test_what_the_caller_stops_at_the_end_of_a_phase_is_over() -> None:
    model, ids = model_of(PROGRAMS["alone"]), tokens(2, 8)
    ends = [lambda ids, scores: ids[:, -1] == TRANSITION]
    found = model.generate(ids, visible_only=False, stopping_criteria=ends, return_dict_in_generate=True)
    assert set(found.phase_ids[:, 8:].flatten().tolist()) <= {0, -1}
    one = [lambda ids, scores: (ids[:, -1] == TRANSITION) & (torch.arange(len(ids)) == 0)]
    both = model.generate(ids, visible_only=False, stopping_criteria=one, return_dict_in_generate=True)
    assert 1 not in both.phase_ids[0] and 1 in both.phase_ids[1]


def test_stop_strings_hold_in_every_run() -> None:
    spec = shipped([{**THINK, **ALONE}, ANSWER])
    model = es.compile_to_hf_model(es.normalize_to_ir(spec))
    tokenizer = AutoTokenizer.from_pretrained(find_tokenizer("bpe-32k", None))
    tokenizer.add_tokens(["<think_end>"], special_tokens=True)
    words = {"tokenizer": tokenizer, "pad_token_id": 2, "eos_token_id": 1, "return_dict_in_generate": True}
    ids = torch.arange(3, 11).reshape(2, 4)
    full = model.generate(ids, **words)
    assert 1 in full.phase_ids
    found = model.generate(ids, stop_strings=["<think_end>"], **words)
    assert 1 not in found.phase_ids and (found.full_sequences == 32_000).any(-1).all()


def test_what_the_caller_adds_is_honoured() -> None:
    model, ids = model_of(PROGRAMS["two"]), tokens(2, 8)
    banned = int(model.generate(ids, visible_only=False)[0, 8])
    for words in ({"suppress_tokens": [banned]}, {"logits_processor": [lambda ids, scores: scores.index_fill(
        1, torch.tensor([banned]), -torch.inf)]}):  # fmt: skip
        found = model.generate(ids, visible_only=False, **words)
        assert banned not in found[:, 8:]
        assert (found[:, 8:14] == TRANSITION).any(-1).all()


def test_budgets_can_be_given_by_name() -> None:
    model, ids = model_of(PROGRAMS["two"]), tokens(2, 8)
    found = model.generate(ids, phase_budgets={"think": 2}, return_dict_in_generate=True)
    assert (found.phase_ids[:, 8:] == 0).sum(-1).tolist() == [2, 2]
    for budgets, reason in (({"dream": 2}, "no phase 'dream'"), ({"think": 0}, "a token at least")):
        with pytest.raises(ValueError, match=reason):
            model.generate(ids, phase_budgets=budgets)


@pytest.mark.parametrize("name", PROGRAMS)
def test_sampling_keeps_to_the_phases(name: str) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(3, 8)
    words = {"do_sample": True, "temperature": 3.0, "num_return_sequences": 2, "return_dict_in_generate": True}
    torch.manual_seed(0)
    first = model.generate(ids, **words)
    check_order(model, first, 8)
    assert len(first.sequences) == 6 and not torch.equal(first.full_sequences[0], first.full_sequences[1])
    torch.manual_seed(0)
    assert torch.equal(model.generate(ids, **words).full_sequences, first.full_sequences)
    greedy = model.generate(ids, do_sample=True, top_k=1)
    assert torch.equal(greedy, model.generate(ids))


def check_order(model: Any, found: Any, prompt: int) -> None:
    """That phases have their budgets, end by the token, and hold none that ends a text."""
    modes = model.config.architecture["execution_modes"]
    transition = TRANSITION if model.config.architecture["transition"]["token"] else None
    for row, phases in zip(
        found.full_sequences[:, prompt:].tolist(), found.phase_ids[:, prompt:].tolist(), strict=True
    ):
        for index, each in enumerate(modes[:-1]):
            mine = [token for token, phase in zip(row, phases, strict=True) if phase == index]
            assert STOP not in mine
            if not each["per_token_rationale"]:
                assert 1 <= len(mine) <= each["max_tokens"]
                assert transition is None or mine.index(transition) == len(mine) - 1
        assert 1 <= phases.count(len(modes) - 1) <= modes[-1]["max_tokens"]


@pytest.mark.parametrize("name", IN_ONE_RUN)
def test_beams_go_through_the_phases(name: str) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(2, 8)
    found = model.generate(ids, num_beams=3, num_return_sequences=2, return_dict_in_generate=True, output_scores=True)
    check_order(model, found, 8)
    assert found.sequences_scores.shape == (4,)


def test_beams_of_mere_budgets_are_those_of_a_model_without_phases() -> None:
    model, plain = model_of([mode("plan", 4), mode("answer", 5)], special=False), built(tiny_spec())
    ids = tokens(2, 8)
    model.generation_config.eos_token_id = None
    expected = plain.generate(ids, num_beams=3, max_new_tokens=9, pad_token_id=0)
    assert torch.equal(model.generate(ids, num_beams=3), expected)


@pytest.mark.parametrize("words", [{"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 3}])
@pytest.mark.parametrize("name", ["two", "rationale", "alone"])
def test_every_cache_gives_the_same(name: str, words: dict[str, Any]) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(2, 8)
    assert torch.equal(model.generate(ids, **words), model.generate(ids))


@pytest.mark.parametrize("name", ["two", "rationale", "alone"])
def test_drafts_change_nothing(name: str) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(1, 8)
    weaker = built(changed(phased(PROGRAMS[name]), {"layer_schedule.0.repeat": 1}))
    weaker.generation_config.eos_token_id = STOP
    assert torch.equal(model.generate(ids, assistant_model=weaker), model.generate(ids))


MTP = {**tiny_spec(), "head": {"type": "causal_lm_mtp", "mtp": {"n_predict": 2}}}


@pytest.mark.parametrize("name", ["two", "rationale", "alone"])
def test_drafts_of_the_models_own_heads_change_nothing(name: str) -> None:
    model, ids = model_of(PROGRAMS[name], base=MTP), tokens(1, 8)
    assert torch.equal(model.generate(ids, use_mtp=True, visible_only=False), model.generate(ids, visible_only=False))


@pytest.mark.parametrize("name", ["alone", "rationale_alone"])
def test_the_least_number_of_tokens_counts_over_all_runs(name: str) -> None:
    model, ids = model_of(PROGRAMS[name]), tokens(2, 8)
    stop = int(model.generate(ids)[0, 8])
    model.generation_config.eos_token_id = stop
    assert not model.generate(ids)[0, 9:].any()
    for words in ({"min_new_tokens": 9}, {"min_length": 17}, {"generation_config": GenerationConfig(min_length=17)}):
        found = model.generate(ids, return_dict_in_generate=True, **words)
        there = found.phase_ids[0, 8:] >= 0
        assert there.sum() >= 9 and stop not in found.full_sequences[0, 8:16]


def test_prompts_as_embeddings_and_caches_of_the_caller_go_through_one_run() -> None:
    model, ids = model_of(PROGRAMS["two"]), tokens(2, 8)
    expected = model.generate(ids, visible_only=False)
    found = model.generate(inputs_embeds=model.model.embed_tokens(ids), visible_only=False)
    assert torch.equal(found, expected[:, 8:])
    cache = model(ids[:, :5], use_cache=True).past_key_values
    assert torch.equal(model.generate(ids, past_key_values=cache, visible_only=False), expected)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"output_attentions": True}, "output_attentions"),
        ({"streamer": Collects()}, "streamer"),
        ({"prefix_allowed_tokens_fn": lambda row, ids: [1]}, "prefix_allowed_tokens_fn"),
    ],
)
def test_what_several_runs_can_not_do_is_refused(words: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"kv_share: false.*{reason}"):
        model_of(PROGRAMS["alone"]).generate(tokens(2, 8), **words)


def test_unknown_and_impossible_transition_tokens_are_refused() -> None:
    model, ids = built(phased(PROGRAMS["two"])), tokens(2, 8)
    with pytest.raises(ValueError, match="'<think_end>', which ends a phase, is not known"):
        model.generate(ids, pad_token_id=0)
    with pytest.raises(ValueError, match="vocab_size"):
        model.generate(ids, pad_token_id=0, transition_token_id=VOCAB)
    with pytest.raises(ValueError, match="ends texts too"):
        model.generate(ids, pad_token_id=0, eos_token_id=[3, 7], transition_token_id=7)
    with pytest.raises(ValueError, match="pad_token_id"):
        model.generate(ids, transition_token_id=7)
    assert model.generate(ids, transition_token_id=7, pad_token_id=0).shape == (2, 13)
    with pytest.raises(ValueError, match="end with their budgets"):
        model_of(PROGRAMS["two"], special=False).generate(ids, transition_token_id=7)


def test_continuous_batching_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="phases"):
        model_of(PROGRAMS["two"]).init_continuous_batching()


def weighted(weights: list[float]) -> Any:
    return built(
        phased([mode(f"p{index}", 3, loss_weight=weight) for index, weight in enumerate(weights)], special=False)
    )


def labelled() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, labels with some left out, and phases; -1 is a token of none."""
    ids = tokens(3, 12)
    labels = ids.clone()
    labels[0, :4] = -100
    phases = torch.randint(-1, 2, ids.shape, generator=torch.Generator().manual_seed(3))
    return ids, labels, phases


def naive_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor, phases: torch.Tensor, total: int | None) -> float:
    """Token by token in float64."""
    weights = [each["loss_weight"] for each in model.config.architecture["execution_modes"]]
    logs = model(ids).logits.detach().double().log_softmax(-1)
    loss, number = 0.0, 0
    for row in range(len(ids)):
        for step in range(1, ids.shape[1]):
            if labels[row, step] == -100:
                continue
            phase = int(phases[row, step])
            number += 1
            loss -= (1.0 if phase < 0 else weights[phase]) * float(logs[row, step - 1, labels[row, step]])
    return loss / (number if total is None else total)


@pytest.mark.parametrize("total", [None, 50])
def test_each_token_counts_by_the_weight_of_its_phase(total: int | None) -> None:
    model, (ids, labels, phases) = weighted([0.25, 3.0]), labelled()
    loss = model(ids, labels=labels, phase_ids=phases, num_items_in_batch=total).loss
    assert abs(float(loss.detach()) - naive_loss(model, ids, labels, phases, total)) < 1e-5


def test_a_phase_of_weight_zero_is_not_learned() -> None:
    model, (ids, _, _) = weighted([0.0, 1.0]), labelled()
    embedded = model.model.embed_tokens(ids).detach().requires_grad_()
    phases = torch.zeros_like(ids)
    phases[:, 6:] = 1
    model(inputs_embeds=embedded, labels=ids, phase_ids=phases * 0).loss.backward()
    assert not embedded.grad.any()
    model(inputs_embeds=embedded, labels=ids, phase_ids=phases).loss.backward()
    assert embedded.grad.any()


def test_without_phase_ids_and_with_weights_of_one_the_loss_is_the_plain_one() -> None:
    ids, labels, phases = labelled()
    plain = built(tiny_spec())(ids, labels=labels).loss
    model = weighted([1.0, 1.0])
    assert torch.equal(model(ids, labels=labels).loss, plain)
    assert torch.equal(weighted([5.0, 0.0])(ids, labels=labels).loss, plain)
    torch.testing.assert_close(model(ids, labels=labels, phase_ids=phases).loss, plain)
    given = torch.full_like(phases, -100)
    torch.testing.assert_close(weighted([5.0, 0.0])(ids, labels=labels, phase_ids=given).loss, plain)


def test_the_parts_of_an_accumulated_batch_add_up_to_the_whole() -> None:
    model, (ids, labels, phases) = weighted([0.25, 3.0]), labelled()
    total = int((labels[:, 1:] != -100).sum())
    whole = model(ids, labels=labels, phase_ids=phases).loss
    parts = [
        model(ids[rows], labels=labels[rows], phase_ids=phases[rows], num_items_in_batch=torch.tensor(total)).loss
        for rows in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_every_loss_of_several_heads_is_weighed() -> None:
    ids, labels, _ = labelled()
    model = built(phased([mode("a", 3, loss_weight=0.0), mode("b", 3)], special=False, base=MTP)).train()
    assert float(model(ids, labels=labels, phase_ids=torch.zeros_like(ids), use_cache=False).loss.detach()) == 0.0
    assert float(model(ids, labels=labels, phase_ids=torch.ones_like(ids), use_cache=False).loss.detach()) > 0.0


def test_a_trainer_sees_phase_ids_among_the_arguments() -> None:
    assert "phase_ids" in inspect.signature(weighted([1.0]).forward).parameters


def test_labels_of_phases_that_there_are_not_are_refused() -> None:
    ids, labels, phases = labelled()
    with pytest.raises(ValueError, match="no execution_modes"):
        built(tiny_spec())(ids, labels=labels, phase_ids=phases)
    with pytest.raises(IndexError):
        weighted([1.0, 1.0])(ids, labels=labels, phase_ids=phases + 2)


OFFLINE = """
import sys, torch
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("eulerstack"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
model.save_pretrained(sys.argv[2] + "/again")
model = AutoModelForCausalLM.from_pretrained(sys.argv[2] + "/again", trust_remote_code=True)
ids = torch.arange(3, 11).reshape(2, 4)
found = model.generate(ids, return_dict_in_generate=True)
loss = model(ids, labels=ids, phase_ids=torch.zeros_like(ids)).loss
torch.save({"full": found.full_sequences, "visible": found.sequences, "phases": found.phase_ids,
            "loss": loss.detach(), "transition": model.config.transition_token_id}, sys.argv[2] + "/found")
"""


def shipped(modes: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    """A spec with the tokenizer that presets use."""
    spec = phased(modes)
    spec["tokenizer_contract"] = {"type": "hf", "pretrained": "bpe-32k"}
    spec["model"] |= {"vocab_size": 32_064, "d_model": 12, "d_ff": 8, **model}
    return spec


@pytest.mark.parametrize(
    "python",
    [
        sys.executable,
        pytest.param(PYTHON_OF_OLDEST, marks=pytest.mark.skipif(not PYTHON_OF_OLDEST, reason="tox -e oldest runs it")),
    ],
    ids=["this", "oldest"],
)
def test_a_directory_goes_through_its_phases_where_eulerstack_is_not_installed(python: str, tmp_path: Path) -> None:
    spec = shipped([{**THINK, "loss_weight": 0.0}, ANSWER])
    ir = es.normalize_to_ir(spec)
    es.compile_to_directory(ir, tmp_path / "model")
    arguments = [python, "-c", OFFLINE, str(tmp_path / "model"), str(tmp_path)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("a<think_end>b").input_ids[-2] == found["transition"] == 32_000
    assert tokenizer.decode([32_000], skip_special_tokens=True) == ""
    model = es.compile_to_hf_model(ir)
    ids = torch.arange(3, 11).reshape(2, 4)
    words = {"tokenizer": tokenizer, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    expected = model.generate(ids, return_dict_in_generate=True, **words)
    assert torch.equal(found["full"], expected.full_sequences) and torch.equal(found["visible"], expected.sequences)
    assert torch.equal(found["phases"], expected.phase_ids)
    assert (found["full"][:, 4:10] == 32_000).any(-1).all() and float(found["loss"]) == 0.0


def test_config_json_tells_the_phases_and_only_specs_with_phases_export_their_code(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(phased(PROGRAMS["two"])), tmp_path / "phased")
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "plain")
    config = json.loads((tmp_path / "phased" / "config.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in config["v1_extensions"]["execution_modes"]] == ["think", "answer"]
    assert config["v1_extensions"]["transition"] == {"type": "special_token", "token": "<think_end>"}
    texts = [(tmp_path / name / "modeling_eulerstack.py").read_text(encoding="utf-8") for name in ("phased", "plain")]
    assert ["class PhasedGenerationMixin" in text for text in texts] == [True, False]
    assert ["phase_weighted_loss" in text for text in texts] == [True, False]


def test_the_transition_token_must_fit_into_the_embedding_and_end_no_text(tmp_path: Path) -> None:
    for spec, reason in (
        (shipped(PROGRAMS["two"], vocab_size=32_000), "has the id 32000"),
        (changed(shipped(PROGRAMS["two"]), {"transition.token": "<|eos|>"}), "ends texts"),
    ):
        with pytest.raises(CompileError) as caught:
            copy_tokenizer(es.normalize_to_ir(spec), tmp_path, None)
        (problem,) = caught.value.diagnostics
        assert problem.path == "transition.token" and reason in problem.what.render(str)


def test_a_token_that_the_tokenizer_has_already_is_no_new_one(tmp_path: Path) -> None:
    spec = changed(shipped(PROGRAMS["two"], vocab_size=32_000), {"transition.token": "<|bos|>"})
    assert copy_tokenizer(es.normalize_to_ir(spec), tmp_path, None)["transition_token_id"] == 0


def test_a_missing_tokenizer_is_said_to_leave_the_transition_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    es.compile_to_directory(es.normalize_to_ir(phased(PROGRAMS["two"])), tmp_path / "model")
    assert "transition_token_id" in caplog.text and "<think_end>" in caplog.text
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    with pytest.raises(ValueError, match="<think_end>"):
        loaded.generate(tokens(1, 4))
