"""Attention sinks against transformers' gpt-oss attention, and what several of them, or fixed ones, mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssRotaryEmbedding

from eulerstack_mixers.modules.attention_calls import eager_attention
from eulerstack_mixers.modules.attention_sinks import AttentionSinks
from tests.mixers.layers import run_layer
from tests.model.mixers.attention import of
from tests.model.specs import built, changed, tiny_spec, tokens


@pytest.mark.parametrize("window", [None, 5])
def test_one_learned_sink_is_that_of_gpt_oss(window: int | None) -> None:
    config = GptOssConfig(
        hidden_size=36,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=12,
        num_hidden_layers=1,
        layer_types=["full_attention" if window is None else "sliding_attention"],
        sliding_window=window or 1,
        attention_bias=True,
        attention_dropout=0.0,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attn_implementation="eager",
    )
    words = of(attention_sinks={}, qkv_bias=True, o_bias=True, window=window)
    model = built(changed(tiny_spec(), {**words, "layer_schedule.0.repeat": 1}))
    ours, theirs = model.model.layers[0].mixer, GptOssAttention(config, 0).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name == "sinks.logits":
                theirs.sinks.copy_(parameter[:, 0])
            else:
                theirs.get_parameter(name).copy_(parameter)
    states = torch.randn(2, 15, 36, generator=torch.Generator().manual_seed(1))
    distance = torch.arange(15)[:, None] - torch.arange(15)[None]
    visible = (distance >= 0) & (distance < (window or 15))
    mask = torch.zeros(1, 1, 15, 15).masked_fill(~visible, torch.finfo(torch.float32).min)
    rotary = GptOssRotaryEmbedding(config)
    results = []
    for module in (ours, theirs):
        given = states.clone().requires_grad_()
        if module is ours:
            output = run_layer(model, given)
        else:
            output = module(given, rotary(given, torch.arange(15)[None]), mask)[0]
        output.square().sum().backward()
        results.append((output.detach(), given.grad, module))
    assert (results[0][0] - results[1][0]).abs().max() <= 1e-5
    assert (results[0][1] - results[1][1]).abs().max() <= 1e-5 * max(1.0, float(results[1][1].abs().max()))
    for name, parameter in theirs.named_parameters():
        mine = ours.sinks.logits.grad[:, 0] if name == "sinks" else ours.get_parameter(name).grad
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert (mine - parameter.grad).abs().max() <= 1e-5 * scale, name


def weights_of(sinks: dict[str, Any] | None) -> tuple[torch.Tensor, Any]:
    model = built(changed(tiny_spec(), of(attention_sinks=sinks, rope=False)))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(tokens(), output_attentions=True).attentions[0], model.model.layers[0].mixer


@pytest.mark.parametrize("n_per_head", [1, 4])
def test_a_fixed_sink_adds_one_below_the_fraction(n_per_head: int) -> None:
    """softmax-off-by-one: exp(s) / (n + sum of exp(s)), so plain weights are scaled by sum / (n + sum)."""
    plain, _ = weights_of(None)
    with_sinks, mixer = weights_of({"n_per_head": n_per_head, "learnable": False})
    assert not list(mixer.sinks.parameters())
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 6, 4, generator=generator) for _ in range(3))
    exponentials = (query @ key.transpose(2, 3)).exp()
    sinks = AttentionSinks(1, {"n_per_head": n_per_head, "learnable": False})(query)
    _, found = eager_attention(mixer, query, key, value, None, 1.0, s_aux=sinks)
    torch.testing.assert_close(found, exponentials / (n_per_head + exponentials.sum(-1, keepdim=True)))
    assert (with_sinks.sum(-1) < 1).all() and (with_sinks <= plain).all()


def test_several_learned_sinks_act_as_one_of_their_joint_logit() -> None:
    several, mixer = weights_of({"n_per_head": 3})
    one = built(changed(tiny_spec(), of(attention_sinks={}, rope=False)))
    one.set_attn_implementation("eager")
    with torch.no_grad():
        one.model.layers[0].mixer.sinks.logits.copy_(mixer.sinks.logits.logsumexp(-1, keepdim=True))
        joint = one(tokens(), output_attentions=True).attentions[0]
    torch.testing.assert_close(several, joint)


def test_a_sink_is_neither_scaled_nor_capped() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
    module = torch.nn.Module()
    logits = torch.tensor([3.0, -1.0])
    _, weights = eager_attention(module, query, key, value, None, 0.5, softcap=1.0, s_aux=logits)
    exponentials = (0.5 * query @ key.transpose(2, 3)).tanh().exp()
    expected = exponentials / (exponentials.sum(-1, keepdim=True) + logits.exp().view(1, 2, 1, 1))
    torch.testing.assert_close(weights, expected)


def test_initial_sinks_are_small_and_differ_from_each_other() -> None:
    import eulerstack as es

    spec = changed(tiny_spec(), {**of(attention_sinks={"n_per_head": 5}), "model.initializer_range": 0.3})
    logits = es.compile_to_hf_model(es.normalize_to_ir(spec)).model.layers[0].mixer.sinks.logits
    assert logits.shape == (3, 5) and len(logits.unique()) == 15
    assert 0.1 < float(logits.detach().std()) < 0.6
