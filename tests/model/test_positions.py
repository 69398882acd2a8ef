"""Positions against independent implementations: transformers' frequency rules and its BLOOM and MPT biases."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import eulerstack as es
from eulerstack_mixers.declarations.positions import rope_parameters
from eulerstack_mixers.modules.positions_alibi import AlibiBias, alibi_slopes
from eulerstack_mixers.modules.positions_rope import RotaryEmbedding, apply_rotary
from tests.model.specs import built, changed, tiny_spec, tokens

SCALINGS = {
    "linear": {"type": "linear", "factor": 2.5},
    "dynamic": {"type": "dynamic", "factor": 3.0},
    "yarn": {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16},
    "yarn_untruncated": {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16, "truncate": False},
    "yarn_betas": {"type": "yarn", "factor": 6.0, "original_max_seq_len": 512, "beta_fast": 20.0, "beta_slow": 2.0},
    "yarn_mscale": {
        "type": "yarn", "factor": 4.0, "original_max_seq_len": 16, "mscale": 0.7, "mscale_all_dim": 0.4,
    },
    "yarn_attention": {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16, "attention_factor": 1.3},
    "longrope": {
        "type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
        "original_max_seq_len": 16,
    },
    "llama3": {"type": "llama3", "factor": 8.0, "original_max_seq_len": 64},
    "llama3_factors": {
        "type": "llama3", "factor": 4.0, "original_max_seq_len": 32, "low_freq_factor": 2.0, "high_freq_factor": 6.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("length", [9, 16, 17, 64, 100])
def test_frequencies_are_those_of_transformers(name: str, length: int) -> None:
    ir = es.normalize_to_ir(changed(tiny_spec(), {"embedding.rope_scaling": SCALINGS[name]}))
    model = es.compile_to_hf_model(ir)
    rotary: RotaryEmbedding = model.model.rotary_embs[0]
    config = LlamaConfig(
        hidden_size=36,
        num_attention_heads=3,
        max_position_embeddings=64,
        rope_parameters=rope_parameters(model.config.architecture["position"]["params"], 64),
    )
    rule = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]]
    frequencies, factor = rule(config, torch.device("cpu"), seq_len=length)
    positions = torch.arange(length)[None]
    cos, sin = rotary(torch.zeros(1), positions)
    angles = torch.cat([positions[..., None] * frequencies] * 2, -1)
    assert (cos - angles.cos() * factor).abs().max() < 1e-5
    assert (sin[..., 6:] - (angles.sin() * factor)[..., 6:]).abs().max() < 1e-5


def test_half_rotation_is_that_of_llama_and_interleaving_is_a_permutation_of_it() -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 3, 5, 12)
    angles = torch.rand(2, 5, 6) * 6
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    expected, _ = apply_rotary_pos_emb(states, states, cos, sin)
    half = apply_rotary(states, cos, torch.cat([-angles.sin(), angles.sin()], -1))
    assert torch.allclose(half, expected, atol=1e-6)
    pairs = torch.stack([states[..., :6], states[..., 6:]], -1).flatten(-2)
    turned = apply_rotary(
        pairs,
        angles.cos().repeat_interleave(2, -1),
        torch.stack([-angles.sin(), angles.sin()], -1).flatten(-2),
        interleaved=True,
    )
    assert torch.allclose(torch.cat([turned[..., 0::2], turned[..., 1::2]], -1), expected, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 7, 8, 12, 16, 20])
def test_alibi_slopes_and_biases_are_those_of_bloom(heads: int) -> None:
    class Config:
        num_attention_heads = heads

    ours = AlibiBias(Config, {}).attention_bias(torch.tensor([8]), torch.arange(9))[:, 0]
    theirs = build_alibi_tensor(torch.ones(1, 9), heads, torch.float32)[:, 0]
    # BLOOM counts from the start of the sequence: the same bias up to a constant for every query.
    assert torch.allclose(ours - ours[:, :1], theirs, atol=1e-5)
    assert len(alibi_slopes(heads)) == heads


@pytest.mark.parametrize("scaling", ["dynamic", "longrope"])
def test_length_dependent_scalings_return_to_the_short_rule_after_a_long_input(scaling: str) -> None:
    model = built(changed(tiny_spec(), {"embedding.rope_scaling": {**SCALINGS[scaling], "original_max_seq_len": 20}}))
    with torch.no_grad():
        short = model(tokens(time=12), use_cache=False).logits
        model(tokens(time=40), use_cache=False)
        assert torch.equal(model(tokens(time=12), use_cache=False).logits, short)


def test_left_padding_does_not_use_up_learned_positions() -> None:
    model = built(changed(tiny_spec(), {"embedding.positional": "learned", "model.max_seq_len": 20}))
    ids = tokens(batch=1, time=20)
    padded = torch.cat([torch.zeros(1, 7, dtype=torch.long), ids], 1)
    mask = (torch.arange(27) >= 7).long()[None]
    with torch.no_grad():
        assert (model(padded, attention_mask=mask).logits[:, 7:] - model(ids).logits).abs().max() < 1e-5
