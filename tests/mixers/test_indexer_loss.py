"""What teaches csa's indexer: the divergence from attention's own weights, which reaches the loss and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.model.mixers import branched  # noqa: E402
from tests.model.mixers.attention import of  # noqa: E402
from tests.model.mixers.compressed_attention import CSA, INDEXER, OUTPUT, with_words  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402

ONE = {"layer_schedule.0.repeat": 1}
VARIANTS = {
    "plain": of(**CSA),
    "sinks": of(**CSA, **OUTPUT, attention_sinks={"n_per_head": 2}),
    "capped": of(**CSA, softcap=2.0),
}


def model_of(change: dict[str, Any], words: dict[str, Any] | None = None) -> Any:
    return built(changed(tiny_spec(), {**change, **ONE, **(words or {})})).double().train()


def divergence(model: Any, ids: Any, **given: Any) -> Any:
    """What the indexers add to the loss."""
    return model(ids, labels=ids, use_cache=False, **given).aux_loss


def by_hand(scores: Any, weights: Any, top_k: int, length: int) -> float:
    """Σ p log(p / q) of every token that sees a block, on average; weights (batch, heads, time, keys)."""
    found = []
    for row, own in zip(scores, weights, strict=True):
        for now in range(len(row)):
            complete = (now + 1) // length
            ranked = sorted(range(complete), key=lambda block: (-float(row[now, block]), block))[:top_k]
            if not ranked:
                continue
            given = torch.stack([own[:, now, len(row) + block].sum() for block in ranked])
            target = given / given.sum()
            guess = row[now, ranked].softmax(0)
            found.append(float((target * (target / guess).log()).sum()))
    return sum(found) / len(found)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_is_the_divergence_from_the_weights_that_attention_gives(name: str) -> None:
    model, seen = model_of(VARIANTS[name]), {}
    mixer, ids = model.model.layers[0].mixer, tokens(time=13)
    mixer.indexer.register_forward_hook(lambda module, given, output: seen.update(scores=output.detach()))
    model.set_attn_implementation("eager")
    weights = model(ids, use_cache=False, output_attentions=True).attentions[0]
    expected = by_hand(seen["scores"], weights.detach(), top_k=3, length=2)
    assert float(divergence(model, ids)) == pytest.approx(expected, rel=1e-9)
    assert expected > 1e-3


def test_it_moves_the_indexer_and_the_language_models_loss_moves_all_else() -> None:
    model, ids = model_of(VARIANTS["plain"]), tokens(time=13)
    output = model(ids, labels=ids, use_cache=False)
    of_loss = torch.autograd.grad(output.aux_loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    of_rest = torch.autograd.grad(output.loss - output.aux_loss, list(model.parameters()), allow_unused=True)
    for (name, _), taught, other in zip(model.named_parameters(), of_loss, of_rest, strict=True):
        moved = [each is not None and bool((each != 0).any()) for each in (taught, other)]
        assert moved == (["indexer" in name, "indexer" not in name]), name


def test_steps_bring_the_indexer_nearer_to_attention() -> None:
    model, ids = model_of(VARIANTS["plain"]), tokens(time=24)
    optimizer = torch.optim.Adam([p for name, p in model.named_parameters() if "indexer" in name], lr=0.02)
    losses = []
    for _ in range(30):
        losses.append(divergence(model, ids))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1]) < 0.5 * float(losses[0])


def test_padding_and_packing_change_nothing_of_it() -> None:
    model, (first, second) = model_of(VARIANTS["plain"]), tokens(batch=2, time=12)
    short = second[:8]
    alone = [float(divergence(model, each[None])) for each in (first, short)]
    # 11 tokens of the first sequence see a block, 7 of the second.
    joint = (11 * alone[0] + 7 * alone[1]) / 18
    padded = torch.stack((first, torch.cat((torch.ones_like(second[:4]), short))))
    mask = torch.ones_like(padded)
    mask[1, :4] = 0
    assert float(divergence(model, padded, attention_mask=mask)) == pytest.approx(joint, rel=1e-9)
    positions = torch.cat((torch.arange(12), torch.arange(8)))[None]
    packed = divergence(model, torch.cat((first, short))[None], position_ids=positions)
    assert float(packed) == pytest.approx(joint, rel=1e-9)
    assert float(divergence(model, first[None, :1])) == 0.0


def test_a_long_input_read_in_chunks_has_the_same_loss() -> None:
    model, ids = model_of(of(**with_words(CSA, m_block=3))), tokens(batch=2, time=300)
    in_chunks = model(ids, labels=ids, use_cache=False)
    at_once = model(ids, labels=ids, use_cache=False, output_attentions=True)
    assert float(in_chunks.aux_loss) == pytest.approx(float(at_once.aux_loss), rel=1e-9)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_it_once(reentrant: bool) -> None:
    found = []
    for checkpointing in (False, True):
        model, ids = model_of(VARIANTS["plain"], {"layer_schedule.0.repeat": 2}), tokens()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        grads = [parameter.grad for parameter in model.parameters()]
        assert all(grad is not None for grad in grads)
        found.append((loss.detach(), grads))
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_a_branch_hands_its_loss_on_beside_that_of_a_probe() -> None:
    block = {"branches": {"wide": {"type": "attention", "attention": CSA}, "far": {"type": "attention"}}}
    change, ids = {branched.MIXER: {"type": "branched", "branched": block}}, tokens()
    probe = {"training_hints.differentiation_objectives.usage_probe_coef": 0.5}
    alone = divergence(model_of(change), ids)
    probed = model_of(change, probe)
    with torch.no_grad():
        for parameter in probed.model.layers[0].mixer.usage_probe.parameters():
            parameter.zero_()
    both = divergence(probed, ids)
    # A probe without an opinion costs the logarithm of two branches, half of which counts.
    assert float(both - alone) == pytest.approx(0.5 * float(torch.tensor(2.0).log()), rel=1e-6)
    assert float(alone) > 1e-3


def test_outside_of_training_and_without_a_weight_there_is_no_loss() -> None:
    ids = tokens()
    assert divergence(model_of(VARIANTS["plain"]).eval(), ids) is None
    silent = model_of(of(**with_words(CSA, indexer={**INDEXER, "kl_coef": 0})))
    assert divergence(silent, ids) is None
    assert "routes" not in silent.config.architecture["blocks"][0]["mixer"]
