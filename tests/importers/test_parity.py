"""An imported checkpoint computes what transformers' own class computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from eulerstack.compiler.conversion import Slab, plan
from eulerstack.dsl.source import load_source
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from tests.importers.cases import CASES, SIZES, STATE_SPACES, Twins

TOLERANCE = 1e-5
LENGTH = 20  # longer than every window and than the original length of dynamic and longrope


# sdpa knows neither capped scores nor sinks; test_what_sdpa_would_leave_out_is_refused holds that it is refused
WITHOUT_SDPA = ("gemma2_caps", "deepseek_v4", "deepseek_v4_variant", "deepseek_v4_windows")
PAIRS = [(case.name, "eager") for case in CASES]
PAIRS += [(case.name, "sdpa") for case in CASES if case.name not in WITHOUT_SDPA]


@pytest.fixture(params=PAIRS, ids="-".join)
def twins(request: pytest.FixtureRequest, twins_of: Callable[[str], Twins]) -> Twins:
    name, implementation = request.param
    made = twins_of(name)
    made.use(implementation)
    return made


def _tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids from 2 on: 0 pads and 1 begins. (batch, length)"""
    return torch.randint(2, SIZES["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def _padded(length: int = LENGTH) -> dict[str, torch.Tensor]:
    """Three rows with 0, 3 and 9 pads on the left, and the position ids that generate makes of the mask."""
    tokens = _tokens(3, length)
    mask = torch.ones_like(tokens)
    for row, pads in enumerate((0, 3, 9)):
        tokens[row, :pads], mask[row, :pads] = 0, 0
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    return {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}


def _unpadded() -> dict[str, torch.Tensor]:
    """Three whole rows."""
    tokens = _tokens(3, LENGTH)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter's gradient; a choice of blocks has none."""
    parameters = dict(model.named_parameters())
    assert all(each.grad is not None or "indexer" in name for name, each in parameters.items())
    return {name: each.grad for name, each in parameters.items() if each.grad is not None}


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= TOLERANCE


@torch.no_grad()
def test_prefill_gives_the_reference_logits(twins: Twins) -> None:
    tokens = _tokens(2, LENGTH)
    theirs = twins.reference(tokens).logits
    assert theirs.std() > 0.1, "logits this small would agree by themselves"
    _close(twins.ours(tokens).logits, theirs)


@torch.no_grad()
def test_cached_steps_give_the_reference_logits(twins: Twins) -> None:
    tokens = _tokens(2, LENGTH)
    whole = twins.reference(tokens).logits
    caches: list[Any] = [None, None]
    for begin, end in [(0, 7), *((step, step + 1) for step in range(7, LENGTH))]:
        logits = []
        for index, model in enumerate((twins.ours, twins.reference)):
            word = "cache_params" if index and twins.case.family in STATE_SPACES else "past_key_values"
            output = model(tokens[:, begin:end], use_cache=True, **{word: caches[index]})
            caches[index] = output[word]
            logits.append(output.logits)
        _close(logits[0], whole[:, begin:end] if twins.case.steps_differ else logits[1])


@torch.no_grad()
def test_a_left_padded_batch_gives_the_reference_logits(twins: Twins) -> None:
    inputs = _padded()
    seen = inputs["attention_mask"].bool()
    if twins.case.padding_leaks:
        rows = zip(inputs["input_ids"], seen, strict=True)
        theirs = torch.cat([twins.reference(row[kept][None]).logits[0] for row, kept in rows])
    else:
        theirs = twins.reference(**inputs).logits[seen]
    _close(twins.ours(**inputs).logits[seen], theirs)


V4_NAMES = {
    r"^lm_head": "head",
    r"\.self_attn\.": ".attn.",
    r"\.mlp\.": ".ffn.",
    r"\.compressor\.indexer\.scorer\.weights_proj": ".indexer.weights_proj",
    r"\.compressor\.indexer\.q_b_proj": ".indexer.wq_b",
    r"\.compressor\.indexer\.": ".indexer.compressor.",
    r"\.(q|o)_(a|b)_proj": r".w\1_\2",
    r"\.q_a_norm": ".q_norm",
    r"\.kv_norm": ".norm",
    r"\.kv_proj": ".wkv",
    r"\.compressor\.gate_proj": ".compressor.wgate",
    r"\.position_bias": ".ape",
    r"\.sinks": ".attn_sink",
    r"\.input_layernorm": ".attn_norm",
    r"\.post_attention_layernorm": ".ffn_norm",
    r"\.(attn|ffn)_hc\.": r".hc_\1_",
    r"shared_experts\.gate_proj": "shared_experts.w1",
    r"shared_experts\.down_proj": "shared_experts.w2",
    r"shared_experts\.up_proj": "shared_experts.w3",
}


def _as_stored(family: str, name: str) -> str:
    """The name that checkpoints have for what the class calls `name`."""
    if family == "NemotronH":
        return re.sub("^model", "backbone", name)
    if family == "DeepseekV4":
        for there, stored in V4_NAMES.items():
            name = re.sub(there, stored, name)
        return name
    return name.replace(".mlp.", ".block_sparse_moe.") if family == "Mixtral" else name


def _fused_name(there: str) -> str:
    """What the class calls all matrices of which `there` is one."""
    place, leaf = there.split(".experts.")
    matrix = leaf.split(".")[1]
    gated = not place.startswith("backbone")
    return f"{place}.experts.{'down_proj' if matrix in ('down_proj', 'w2') else 'gate_up_proj' if gated else matrix}"


def test_the_loss_and_every_gradient_are_the_references(twins: Twins) -> None:
    inputs = _padded() if not twins.case.padding_leaks else _unpadded()
    # the pad token as a real one too: some classes train its embedding, some don't
    inputs["input_ids"][0, 5] = 0
    # nothing is predicted at pads, whose hidden states nobody defines; so the first token is no target
    mask = inputs["attention_mask"]
    inputs["labels"] = inputs["input_ids"].masked_fill((mask == 0) | (mask.cumsum(-1) == 1), -100)
    losses = []
    for model in (twins.ours, twins.reference):
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        losses.append(loss.detach())
    _close(*losses)
    ours, theirs = _gradients(twins.ours), _gradients(twins.reference)
    importer = next(one for one in get_registry().importers() if one.model_type == twins.case.model_type)
    ir = normalize_to_ir(load_source(twins.directory / "spec.yml"))
    theirs = {_as_stored(twins.case.family, name): gradient for name, gradient in theirs.items()}
    shapes = {name: tuple(gradient.shape) for name, gradient in ours.items()}
    pieces, uncovered = plan(importer.rules_for(ir), shapes)
    assert not uncovered
    # In memory the class keeps experts together, whose matrices its checkpoints hold one by one.
    slabs = {piece.there: piece for piece in pieces if isinstance(piece, Slab)}
    for name in {_fused_name(there) for there in slabs}:
        whole = theirs.pop(name)
        own = [piece for there, piece in slabs.items() if _fused_name(there) == name]
        theirs |= {piece.there: whole[piece.expert, piece.begin : piece.end] for piece in own}
    assert {piece.there for piece in pieces} == set(theirs)
    for piece in pieces:
        if isinstance(piece, Slab):
            _close(ours[piece.name][piece.expert, piece.begin : piece.end], theirs[piece.there])
            continue
        joined = torch.cat([ours[name] for name in piece.here])
        if piece.flat:
            joined = joined.flatten()
        _close(joined.t() if piece.transpose and joined.dim() == 2 else joined, theirs[piece.there])
    assert max(gradient.abs().max() for gradient in theirs.values()) > 1e-3


def test_generate_gives_the_reference_tokens(twins: Twins) -> None:
    inputs = {key: value for key, value in _padded(11).items() if key != "position_ids"}
    words: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    ours = twins.ours.generate(**inputs, **words)
    if not twins.case.steps_differ and not twins.case.padding_leaks:
        assert torch.equal(ours, twins.reference.generate(**inputs, **words))
        return
    for row, kept, own in zip(inputs["input_ids"], inputs["attention_mask"].bool(), ours, strict=True):
        theirs = twins.reference.generate(row[kept][None], use_cache=not twins.case.steps_differ, **words)
        assert torch.equal(own[-theirs.shape[1] :], theirs[0])


@pytest.mark.parametrize("name", WITHOUT_SDPA)
def test_what_sdpa_would_leave_out_is_refused(name: str, twins_of: Callable[[str], Twins]) -> None:
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        twins_of(name).ours.set_attn_implementation("sdpa")
