"""A hash of the token's id chooses experts, the same way everywhere, and the router only weighs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HashRouter, DeepseekV4TopKRouter

import eulerstack as es
from eulerstack_mixers.modules.hash_routing import hashed_experts
from eulerstack_mixers.modules.moe import ExpertRouter
from eulerstack_mixers.reference.moe import hashed, mixture_of_experts
from tests.model.mixers.moe import spec
from tests.model.specs import VOCAB, built, tokens

HASH = {"type": "hash", "hash_salt": 11}


@pytest.mark.parametrize(("experts", "top_k", "salt"), [(6, 2, 0), (7, 7, 3), (1, 1, 0), (256, 8, 2**31 - 1)])
def test_the_table_is_the_naive_hash(experts: int, top_k: int, salt: int) -> None:
    found = hashed_experts(torch.arange(500), salt, experts, top_k).tolist()
    assert found == [hashed(token, salt, experts, top_k) for token in range(500)]
    assert all(len(set(row)) == top_k for row in found)


def test_every_choice_is_alike_likely() -> None:
    pairs = hashed_experts(torch.arange(60_000), 5, 6, 2)
    counts = torch.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36).view(6, 6)
    assert torch.equal(counts.diagonal(), torch.zeros(6, dtype=torch.long))
    others = counts[~torch.eye(6, dtype=torch.bool)]
    # 30 ordered pairs of 2000 each, whose deviation is 44.
    assert (others - 2000).abs().max() < 5 * 44


def test_it_is_the_naive_mixture_forward_and_backward() -> None:
    words = spec(routing=HASH, affinity="sqrt_softplus", routed_scale=1.5, shared_experts=1)
    ffn = built(words).model.layers[0].ffn.double().eval()
    params = dict(es.normalize_to_ir(words).layers[0].ffn.params)
    states = torch.randn(2, 9, 36, dtype=torch.float64, requires_grad=True)
    ids = tokens(time=9)
    weights = {name: value for name, value in ffn.state_dict(keep_vars=True).items() if name != "router.table"}
    rows = zip(states, ids.tolist(), strict=True)
    expected = torch.stack([mixture_of_experts(row, weights, params, of) for row, of in rows])
    ffn.begin(None, ids)
    output = ffn(states)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
    probe, inputs = torch.randn_like(output), [states, *ffn.parameters()]
    ours, theirs = (torch.autograd.grad((each * probe).sum(), inputs) for each in (output, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("kind", ["hash", "learned"])
def test_it_is_the_router_of_deepseek_v4(kind: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 36, "n_routed_experts": 6, "num_experts_per_tok": 2, "vocab_size": VOCAB}
    config = DeepseekV4Config(**sizes, routed_scaling_factor=1.7, scoring_func="sqrtsoftplus")
    theirs: Any = (DeepseekV4HashRouter if kind == "hash" else DeepseekV4TopKRouter)(config)
    nn.init.normal_(theirs.weight)
    correction = {} if kind == "hash" else {"bias_correction": {"enabled": True}}
    words = spec(routing={"type": kind}, router="sqrt_softplus", routed_scale=1.7, **correction)
    ours = built(words).model.layers[0].ffn.router.eval()
    assert isinstance(ours, ExpertRouter)
    ours.load_state_dict({"weight": theirs.weight}, strict=False)
    states, ids = torch.randn(2, 13, 36, requires_grad=True), tokens(time=13)
    if kind == "hash":
        assert ours.table is not None
        theirs.tid2eid.copy_(torch.stack([torch.randperm(6)[:2] for _ in range(VOCAB)]))
        ours.table.copy_(theirs.tid2eid)
        expected = theirs(states, ids)
    else:
        assert ours.bias is not None
        ours.bias.copy_(torch.randn(6))
        theirs.e_score_correction_bias.copy_(ours.bias)
        expected = theirs(states)
    found = ours(states.flatten(0, 1), ids.flatten())
    # The order among the chosen is nobody's business.
    (logits, weights, chosen), (their_logits, their_weights, their_chosen) = found, expected
    torch.testing.assert_close(logits, their_logits.view_as(logits), atol=1e-5, rtol=1e-5)
    order, their_order = chosen.argsort(-1), their_chosen.argsort(-1)
    assert torch.equal(chosen.gather(-1, order), their_chosen.gather(-1, their_order))
    ordered = weights.gather(-1, order), their_weights.gather(-1, their_order)
    torch.testing.assert_close(*ordered, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((each**2).sum(), states)[0] for each in ordered]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_embeddings_need_the_ids_that_they_stand_for() -> None:
    model, ids = built(spec(routing=HASH)), tokens()
    embedded = model.get_input_embeddings()(ids)
    with pytest.raises(ValueError, match="give input_ids, beside inputs_embeds too"):
        model(inputs_embeds=embedded)
    with pytest.raises(ValueError, match="by token ids"):
        model.model.layers[0].ffn(embedded)
    both = model(input_ids=ids, inputs_embeds=embedded).logits
    torch.testing.assert_close(both, model(ids).logits)
    changed = model(input_ids=(ids + 1) % VOCAB, inputs_embeds=embedded).logits
    assert (changed - both).abs().max() > 1e-3


def test_a_model_that_reads_no_ids_still_takes_one_or_the_other() -> None:
    model, ids = built(spec()), tokens()
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=ids, inputs_embeds=model.get_input_embeddings()(ids))


def test_new_tokens_have_experts_and_old_ones_keep_theirs(tmp_path: Path) -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(spec(routing=HASH)))
    before = model.model.layers[1].ffn.router.table.clone()
    model.resize_token_embeddings(VOCAB + 4)
    table = model.model.layers[1].ffn.router.table
    assert torch.equal(table, hashed_experts(torch.arange(VOCAB + 4), 11, 6, 2))
    assert torch.equal(table[:VOCAB], before)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    ids = torch.tensor([[VOCAB + 3, 1, VOCAB]])
    torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_holds_the_table_and_keeps_a_changed_one(dtype: str, tmp_path: Path) -> None:
    words = spec(routing=HASH)
    words["model"]["dtype"] = dtype
    es.compile_to_directory(es.normalize_to_ir(words), tmp_path / "first", seed=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first", trust_remote_code=True)
    tables = [layer.ffn.router.table for layer in model.model.layers]
    assert all(torch.equal(table, hashed_experts(torch.arange(VOCAB), 11, 6, 2)) for table in tables)
    tables[0].copy_(tables[0].roll(1, 0))
    model.save_pretrained(tmp_path / "second")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "second", trust_remote_code=True, dtype="float16")
    assert torch.equal(again.model.layers[0].ffn.router.table, tables[0])
    assert again.model.layers[0].ffn.router.table.dtype == torch.long


def test_only_the_weights_learn() -> None:
    model, ids = built(spec(routing=HASH)).train(), tokens()
    output = model(ids, labels=ids)
    output.loss.backward()
    assert output.aux_loss is not None and float(output.aux_loss) == 0.0
    assert model.model.layers[0].ffn.router.weight.grad.abs().max() > 0
