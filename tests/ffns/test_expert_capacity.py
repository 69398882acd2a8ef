"""Experts have a capacity while training; a token's fate depends on the earlier tokens of its own sequence alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import eulerstack as es
from eulerstack_mixers.modules.expert_capacity import running_capacity, taken_within
from eulerstack_mixers.reference.moe import mixture_of_experts
from tests.model.mixers.moe import spec
from tests.model.specs import built, tokens

WIDTH = 36
POLICIES = ("drop", "overflow", "pad")
ROUTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deepseek": {"router": "sigmoid", "n_groups": 3, "balance": {"group_limit": 2}, "shared_experts": 1},
    "hash": {"routing": {"type": "hash"}},
    "unnormalised": {"normalize_top_k": False, "top_k": 3},
}


def layer_of(policy: str, factor: float = 0.75, **words: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The first layer's mixture in float64, training, and its parameters in the IR."""
    words = spec(capacity_factor=factor, capacity_drop_policy=policy, **words)
    ffn = built(words).model.layers[0].ffn.double().train()
    return ffn, dict(es.normalize_to_ir(words).layers[0].ffn.params)


def run(ffn: nn.Module, states: torch.Tensor, ids: torch.Tensor, **context: Any) -> torch.Tensor:
    ffn.begin(context.pop("kept", None), ids, **context)
    output = ffn(states)
    ffn.finish()
    return output


def batch(time: int = 24, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """States that lean to one side, so that some experts are asked for more than others."""
    generator = torch.Generator().manual_seed(1)
    lean = torch.randn(WIDTH, dtype=torch.float64, generator=generator)
    states = torch.randn(rows, time, WIDTH, dtype=torch.float64, generator=generator) + 0.5 * lean
    return states, tokens(batch=rows, time=time)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("factor", [0.3, 0.75, 1.0, 1.25])
def test_it_is_the_naive_mixture_forward_and_backward(policy: str, routing: str, factor: float) -> None:
    ffn, params = layer_of(policy, factor, **ROUTINGS[routing])
    states, ids = batch(time=17)
    states.requires_grad_()
    weights = {name: value for name, value in ffn.state_dict(keep_vars=True).items() if name != "router.table"}
    rows = zip(states, ids.tolist(), strict=True)
    expected = torch.stack([mixture_of_experts(row, weights, params, of, training=True) for row, of in rows])
    output = run(ffn, states, ids)
    torch.testing.assert_close(output, expected, atol=1e-11, rtol=1e-11)
    probe, inputs = torch.randn_like(output), [states, *ffn.parameters()]
    ours, theirs = (
        torch.autograd.grad((each * probe).sum(), inputs, allow_unused=True, materialize_grads=True)
        for each in (output, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_expert_takes_what_fits_and_no_more(policy: str) -> None:
    ffn, _ = layer_of(policy, 1.0)
    loads: list[torch.Tensor] = []
    states, ids = batch()
    if policy == "pad":
        dropped, _ = layer_of("drop", 1.0)
        output = run(ffn, states[:1], ids[:1])
        torch.testing.assert_close(output, run(dropped, states[:1], ids[:1]), atol=1e-12, rtol=1e-12)
        return
    plain = ffn.experts.forward

    def counted(hidden: Any, weights: Any, chosen: Any, taken: Any = None) -> Any:
        loads.append(torch.zeros(6).index_add(0, chosen[taken], torch.ones(int(taken.sum()))))
        return plain(hidden, weights, chosen, taken)

    ffn.experts.forward = counted
    run(ffn, states[:1], ids[:1])
    # 24 tokens of 2 experts each over 6 experts.
    assert loads[0].max() <= 8
    asked = ffn.router(states[0])[2]
    assert torch.bincount(asked.flatten(), minlength=6).max() > 8
    # All that overflows from one expert finds room in others.
    assert int(loads[0].sum()) < 48 if policy == "drop" else int(loads[0].sum()) >= 47


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_token_knows_nothing_of_later_ones_not_even_that_there_are_any(policy: str, routing: str) -> None:
    ffn, _ = layer_of(policy, **ROUTINGS[routing])
    states, ids = batch()
    whole = run(ffn, states, ids)
    assert not torch.allclose(whole, run(ffn.eval(), states, ids))
    ffn.train()
    for length in (1, 5, 16, 23):
        torch.testing.assert_close(run(ffn, states[:, :length], ids[:, :length]), whole[:, :length],
                                   atol=1e-12, rtol=1e-12)  # fmt: skip
        other = states.clone()
        other[:, length:] = -3 * other[:, length:]
        torch.testing.assert_close(run(ffn, other, ids)[:, :length], whole[:, :length], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_token_knows_nothing_of_other_rows(policy: str) -> None:
    ffn, _ = layer_of(policy)
    states, ids = batch(rows=3)
    apart = torch.cat([run(ffn, states[i : i + 1], ids[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(run(ffn, states, ids), apart, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_padding_takes_no_room(policy: str) -> None:
    ffn, _ = layer_of(policy)
    states, ids = batch(time=12, rows=1)
    expected = run(ffn, states, ids)
    for left, right in ((5, 0), (0, 7), (3, 4)):
        padded = torch.cat((states[:, :1].expand(-1, left, -1), states, states[:, :1].expand(-1, right, -1)), dim=1)
        more = torch.cat((ids[:, :1].expand(-1, left), ids, ids[:, :1].expand(-1, right)), dim=1)
        kept = torch.tensor([[0] * left + [1] * 12 + [0] * right])
        found = run(ffn, padded, more, kept=kept)[:, left : left + 12]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_packed_sequences_have_capacities_of_their_own(policy: str) -> None:
    ffn, _ = layer_of(policy)
    states, ids = batch(rows=2)
    lengths = (1, 9, 3, 11)
    sequence_ids = torch.cat([torch.full((length,), index) for index, length in enumerate(lengths)])[None]
    apart = torch.cat([run(ffn, *each) for each in zip(states.split(lengths, 1), ids.split(lengths, 1), strict=True)],
                      dim=1)  # fmt: skip
    for given in (sequence_ids, sequence_ids.expand(2, -1)):
        packed = run(ffn, states, ids, sequence_ids=given)
        torch.testing.assert_close(packed, apart, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_packed_model_trains_as_its_parts_do(policy: str) -> None:
    model = built(spec(capacity_factor=0.6, capacity_drop_policy=policy, load_balance_coef=0.0)).train()
    ids = tokens(batch=1, time=20)
    positions = torch.tensor([[*range(8), *range(12)]])
    packed = model(ids, position_ids=positions, use_cache=False).logits
    apart = torch.cat([model(ids[:, :8]).logits, model(ids[:, 8:]).logits], dim=1)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_outside_of_training_nothing_is_limited(policy: str) -> None:
    limited = built(spec(capacity_factor=0.1, capacity_drop_policy=policy))
    free, ids = built(spec()), tokens(time=24)
    assert torch.equal(limited.eval()(ids).logits, free.eval()(ids).logits)
    assert (limited.train()(ids).logits - free.train()(ids).logits).abs().max() > 1e-2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(policy: str, reentrant: bool) -> None:
    gradients, ids = [], tokens(time=24)
    for checkpointing in (False, True):
        model = built(spec(capacity_factor=0.6, capacity_drop_policy=policy)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_pad_computes_as_many_rows_whatever_the_load() -> None:
    ffn, _ = layer_of("pad", 1.0)
    sizes, plain = [], ffn.experts.in_buffers

    def noted(buffers: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(buffers.shape))
        return plain(buffers)

    ffn.experts.in_buffers = noted
    states, ids = batch()
    run(ffn, states, ids)
    run(ffn, -2 * states, ids)
    assert sizes == [(6, 2 * 8, WIDTH)] * 2


def test_losses_count_what_was_asked_for() -> None:
    states, ids = batch()
    found = []
    for words in ({}, {"capacity_factor": 0.3}):
        ffn = built(spec(load_balance_coef=1.0, **words)).model.layers[0].ffn.double().train()
        ffn.begin(None, ids)
        ffn(states)
        found.append(float(ffn.finish()[0].detach()))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_the_closed_form_is_taking_one_after_another() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(30):
        claims = (torch.rand(2, 40, 5, generator=generator) < 0.5).long()
        kept = torch.rand(2, 40, generator=generator) < 0.8
        claims = claims * kept.unsqueeze(-1)
        sequences = None if trial % 2 else (torch.rand(2, 40, generator=generator) < 0.1).long().cumsum(1)
        share = 0.1 + 0.05 * trial
        starts = None
        if sequences is not None:
            starts = torch.cat((torch.ones(2, 1, dtype=torch.bool), sequences[:, 1:] != sequences[:, :-1]), dim=1)
        limits = running_capacity(share, kept, starts)
        taken, number = taken_within(claims, limits, sequences)
        for row in range(2):
            load = torch.zeros(5, dtype=torch.long)
            for step in range(40):
                if starts is not None and starts[row, step]:
                    load.zero_()
                fits = (claims[row, step] > 0) & (load < limits[row, step])
                load = load + fits.long()
                assert torch.equal(taken[row, step], fits) and torch.equal(number[row, step], load)
