"""Latent attention against transformers' DeepSeek-V3 attention, its absorbed form, its cache and its price."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.plugins import Dims
from eulerstack_mixers.declarations.attention import ATTENTION
from eulerstack_mixers.modules.latent_attention import LatentAttention
from tests.mixers.layers import run_layer
from tests.model.mixers.attention import LATENT, VARIANTS, of
from tests.model.specs import built, changed, tiny_spec, tokens

SIZES = {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3, "qk_nope_head_dim": 12}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
THERE = {"kv_a_proj": "kv_a_proj_with_mqa", "q_a_norm": "q_a_layernorm", "kv_a_norm": "kv_a_layernorm"}


@pytest.mark.parametrize("rope", [PLAIN, {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}], ids=["plain", "yarn"])
@pytest.mark.parametrize("q_latent_dim", [None, 21])
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_layer_is_that_of_deepseek_v3(rope: dict[str, Any], q_latent_dim: int | None, interleaved: bool) -> None:
    config = DeepseekV3Config(
        **SIZES,
        kv_lora_rank=16,
        q_lora_rank=q_latent_dim,
        qk_rope_head_dim=10,
        v_head_dim=7,
        attention_bias=True,
        max_position_embeddings=64,
        rope_parameters=rope,
        rope_interleave=interleaved,
        attn_implementation="eager",
    )
    scaling = None
    if rope is not PLAIN:
        names = {"rope_type": "type", "original_max_position_embeddings": "original_max_seq_len"}
        scaling = {names.get(key, key): value for key, value in rope.items() if key != "rope_theta"}
    words = of(
        latent_dim=16, q_latent_dim=q_latent_dim, rope_head_dim=10, v_head_dim=7, latent_norm_eps=1e-6,
        qkv_bias=True, o_bias=True,
    )  # fmt: skip
    embedding = {"embedding.rope_interleaved": interleaved, "embedding.rope_scaling": scaling}
    model = built(changed(tiny_spec(), {**words, **embedding}))
    ours, theirs = model.model.layers[0].mixer, DeepseekV3Attention(config, 0).eval()
    assert ours.scaling == pytest.approx(theirs.scaling, rel=1e-12)
    names_there = {}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            module, _, leaf = name.partition(".")
            names_there[name] = f"{THERE.get(module, module)}.{leaf}"
            theirs.get_parameter(names_there[name]).copy_(parameter)
    assert set(names_there.values()) == {name for name, _ in theirs.named_parameters()}
    states = torch.randn(2, 23, 36, generator=torch.Generator().manual_seed(1))
    mask = torch.full((23, 23), torch.finfo(torch.float32).min).triu(1)[None, None]
    rotary = DeepseekV3RotaryEmbedding(config)
    outputs, gradients = [], []
    for module in (ours, theirs):
        given = states.clone().requires_grad_()
        if module is ours:
            output = run_layer(model, given)
        else:
            output = module(given, rotary(given, torch.arange(23)[None]), mask)[0]
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(given.grad)
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5
    for name, there in names_there.items():
        difference = (ours.get_parameter(name).grad - theirs.get_parameter(there).grad).abs().max()
        assert difference <= 1e-5, name


LATENT_VARIANTS = [name for name in VARIANTS if name.startswith("latent")]


@pytest.mark.parametrize("name", LATENT_VARIANTS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_absorbing_the_matrices_changes_nothing(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(VARIANTS[name]).double()
    model.set_attn_implementation("eager")
    ids = tokens(time=18)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    results = []
    for absorbed in (False, True):
        monkeypatch.setattr(LatentAttention, "absorbs", lambda self, *sizes, absorbed=absorbed: absorbed)
        cache, parts = None, []
        with torch.no_grad():
            for end in range(chunk, 19, chunk):
                output = model(ids[:, end - chunk : end], attention_mask=mask[:, :end], past_key_values=cache)
                cache = output.past_key_values
                parts.append(output.logits)
        results.append(torch.cat(parts, 1))
    assert (results[0] - results[1])[mask.bool()].abs().max() < 1e-9


def test_attention_weights_have_the_same_shape_in_absorbed_form() -> None:
    model = built(VARIANTS["latent_full"])
    model.set_attn_implementation("eager")
    ids = tokens(time=9)
    with torch.no_grad():
        whole = model(ids, output_attentions=True).attentions[0]
        cache = model(ids[:, :8], use_cache=True).past_key_values
        last = model(ids[:, 8:], past_key_values=cache, output_attentions=True).attentions[0]
    assert last.shape == (2, 3, 1, 9)
    torch.testing.assert_close(last, whole[:, :, 8:], atol=1e-6, rtol=0)


def test_the_cheaper_form_is_taken() -> None:
    model = built(VARIANTS["latent"])
    mixer = model.model.layers[0].mixer
    some_mask = torch.zeros(1)
    assert mixer.absorbs(1, 500, None) and mixer.absorbs(1, 500, some_mask)
    assert not mixer.absorbs(500, 500, None)
    # Widths of DeepSeek-V3: expanding wins once a chunk is about as long as half the latent.
    mixer.latent_dim, mixer.nope_dim, mixer.rope_dim, mixer.value_dim = 512, 128, 64, 128
    taken = [mixer.absorbs(time, 4096, some_mask) for time in (1, 8, 64, 512, 4096)]
    assert taken == [True, True, True, False, False]
    model.set_attn_implementation("flex_attention")
    assert not mixer.absorbs(1, 500, None)


def test_the_cache_holds_the_normalised_latent_and_one_rotary_key() -> None:
    model = built(VARIANTS["latent_full"])
    mixer, seen = model.model.layers[0].mixer, {}
    mixer.kv_a_norm.register_forward_hook(lambda module, given, output: seen.update(latent=output))
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
    layer = cache.layers[0]
    assert layer.keys.shape == (2, 1, 17, 16) and layer.values.shape == (2, 1, 17, 10)
    assert torch.equal(layer.keys[:, 0], seen["latent"])


def test_the_defaults_follow_from_the_head() -> None:
    params = es.normalize_to_ir(changed(tiny_spec(), of(latent_dim=16))).layers[0].mixer.params
    assert (params["rope_head_dim"], params["v_head_dim"], params["q_latent_dim"]) == (6, 12, None)
    assert params["scale"] == 18**-0.5 and params["latent_norm_eps"] == 1e-5
    odd = es.normalize_to_ir(changed(tiny_spec(), {**of(latent_dim=16), "model.head_dim": 14}))
    assert odd.layers[0].mixer.params["rope_head_dim"] == 6


def test_grouped_keys_of_other_layers_leave_latent_attention_alone() -> None:
    one, three = (
        built(changed(tiny_spec(), {**of(**LATENT), "model.n_kv_heads": n_kv_heads})) for n_kv_heads in (1, 3)
    )
    with torch.no_grad():
        assert torch.equal(one(tokens()).logits, three(tokens()).logits)


def test_a_layer_of_deepseek_v3_has_its_published_price() -> None:
    dims = Dims(7168, 128, 128, 128, 18432, 129280, 4096, 1e-6, "rope")
    params = {
        "latent_dim": 512,
        "q_latent_dim": 1536,
        "rope_head_dim": 64,
        "v_head_dim": 128,
        "qkv_bias": False,
        "o_bias": False,
        "window": None,
        "window_dilation": None,
        "attention_sinks": None,
        "compression": None,
        "window_mode": "standard",
    }
    cost = ATTENTION.cost(dims, params, 2)
    assert cost.params == 187_107_328
    assert cost.state_bytes_per_token == 2 * 576
    assert cost.flops_per_token_per_context == 2 * 128 * (192 + 128)
    assert cost.decode_flops_per_context == 2 * 128 * (576 + 512)


def test_decoding_pays_for_the_latent_per_visible_token() -> None:
    cost = model_cost(es.normalize_to_ir(changed(tiny_spec(), of(**LATENT))))
    assert cost.flops_per_token(11) - cost.flops_per_token(10) == 3 * 2 * 3 * (2 * 16 + 6)
    assert cost.prefill_flops(11) - cost.prefill_flops(10) == cost.flops_per_token(0) + 11 * 3 * 2 * 3 * (12 + 6 + 12)
