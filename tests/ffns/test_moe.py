"""A mixture of experts is the naive one, the published ones, and adds to the loss what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import DeepseekV3Config, MixtralConfig, NemotronHConfig, Qwen2MoeConfig, Qwen3MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMoE
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError
from eulerstack_mixers.modules.grouped import grouped_linear
from eulerstack_mixers.reference.moe import mixture_of_experts
from tests.model.mixers.moe import FFN, VARIANTS, spec
from tests.model.specs import built, tokens

WIDTH = 36
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "every expert": {"top_k": 6, "normalize_top_k": False},
    "one expert": {"experts": 1, "top_k": 1, "activation": "relu2"},
    "deepseek": {"router": "sigmoid", "routed_scale": 2.5, "shared_experts": 2, "d_expert": 11,
                 "n_groups": 3, "balance": {"group_limit": 2}, "bias_correction": {"enabled": True}},
    "shared gate": {"shared_experts": 1, "shared_gate": True, "d_shared": 9},
    "ungated": {"gated": False, "activation": "relu2", "shared_experts": 1, "shared_gate": True},
    "cut gates": {"gate_limit": 0.4, "shared_experts": 1, "router": "sqrt_softplus"},
    "mixed": {"router": "softmax", "affinity": "sqrt_softplus", "top_k": 3, "d_shared": 5, "shared_experts": 1},
}  # fmt: skip


def ffn_of(dtype: torch.dtype = torch.float64, **words: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The first layer's mixture with lively weights, and its parameters in the IR."""
    ir = es.normalize_to_ir(spec(**words))
    ffn = built(spec(**words)).model.layers[0].ffn.to(dtype).eval()
    if ffn.router.bias is not None:
        ffn.router.bias.copy_(torch.randn(ffn.router.n_experts, generator=torch.Generator().manual_seed(3)))
    return ffn, dict(ir.layers[0].ffn.params)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_naive_mixture_forward_and_backward(kind: str) -> None:
    ffn, params = ffn_of(**KINDS[kind])
    states = torch.randn(2, 9, WIDTH, dtype=torch.float64, requires_grad=True)
    weights = {name: value.requires_grad_() for name, value in ffn.state_dict(keep_vars=True).items()}
    expected = torch.stack([mixture_of_experts(row, weights, params) for row in states])
    output = ffn(states)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
    probe, inputs = torch.randn_like(output), [states, *ffn.parameters()]
    ours, theirs = (
        torch.autograd.grad((each * probe).sum(), inputs, allow_unused=True, materialize_grads=True)
        for each in (output, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


def published(kind: str) -> tuple[nn.Module, dict[str, Any]]:
    """A published class with random weights, and the words that say the same."""
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "hidden_act": "silu"}
    if kind == "mixtral":
        config = MixtralConfig(**sizes, intermediate_size=20, num_local_experts=6, num_experts_per_tok=2)
        return MixtralSparseMoeBlock(config), {"d_expert": 20}
    if kind == "qwen3":
        config = Qwen3MoeConfig(**sizes, moe_intermediate_size=13, num_experts=6, num_experts_per_tok=3,
                                norm_topk_prob=False)  # fmt: skip
        return Qwen3MoeSparseMoeBlock(config), {"d_expert": 13, "top_k": 3, "normalize_top_k": False}
    if kind == "qwen2":
        config = Qwen2MoeConfig(**sizes, moe_intermediate_size=13, num_experts=6, num_experts_per_tok=2,
                                shared_expert_intermediate_size=9)  # fmt: skip
        words = {"shared_experts": 1, "d_shared": 9, "shared_gate": True, "normalize_top_k": False}
        return Qwen2MoeSparseMoeBlock(config), {**words, "d_expert": 13}
    if kind == "nemotron":
        config = NemotronHConfig(hidden_size=WIDTH, moe_intermediate_size=13, n_routed_experts=6, num_experts_per_tok=2,
                                 n_group=1, topk_group=1, moe_shared_expert_intermediate_size=9)  # fmt: skip
        words = {"router": "sigmoid", "bias_correction": {"enabled": True}, "gated": False, "activation": "relu2"}
        return NemotronHMoE(config), {**words, "shared_experts": 1, "d_shared": 9, "d_expert": 13}
    config = DeepseekV3Config(**sizes, moe_intermediate_size=13, n_routed_experts=6, num_experts_per_tok=2, n_group=3,
                              topk_group=2, routed_scaling_factor=2.5, n_shared_experts=2)  # fmt: skip
    return DeepseekV3MoE(config), {**KINDS["deepseek"], "d_expert": 13}


@pytest.mark.parametrize("kind", ["mixtral", "qwen2", "qwen3", "deepseek", "nemotron"])
def test_it_is_the_published_mixture_forward_and_backward(kind: str) -> None:
    torch.manual_seed(0)
    theirs, words = published(kind)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours, _ = ffn_of(torch.float32, **words)
    names = {"shared_expert_gate.weight": "shared.gate.weight"}
    names |= {"gate.weight": "router.weight", "gate.e_score_correction_bias": "router.bias"}
    state = {
        names.get(name, name.replace("shared_experts.", "shared.").replace("shared_expert.", "shared.")): value
        for name, value in theirs.state_dict().items()
    }
    if kind in ("deepseek", "nemotron"):
        state["router.bias"] = torch.randn(6)
        theirs.gate.e_score_correction_bias.copy_(state["router.bias"])
    ours.load_state_dict(state)
    theirs.eval()
    states = torch.randn(2, 11, WIDTH, requires_grad=True)
    outputs = ours(states), theirs(states)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(states)
    gradients = [torch.autograd.grad((output * probe).sum(), states)[0] for output in outputs]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 16), (35, 51), (1, 1)])
def test_a_grouped_product_is_that_of_each_group(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    rows, weights = torch.randn(9, inputs, dtype=dtype), torch.randn(4, outputs, inputs, dtype=dtype)
    rows, weights = rows.requires_grad_(), weights.requires_grad_()
    ends = torch.tensor([3, 3, 4, 9], dtype=torch.int32)
    expected = torch.cat([rows[a:b] @ weights[i].T for i, (a, b) in enumerate(((0, 3), (3, 3), (3, 4), (4, 9)))])
    output = grouped_linear(rows, weights, ends)
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(output, expected, atol=tolerance, rtol=tolerance)
    probe = torch.randn_like(output)
    for one, other in zip(*(torch.autograd.grad((each * probe).sum(), (rows, weights)) for each in (output, expected)),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, atol=2 * tolerance, rtol=2 * tolerance)


def losses(ffn: Any, states: Any, kept: Any = None) -> float:
    ffn.train().begin(kept)
    ffn(states)
    return float(ffn.finish()[0])


def test_the_load_balance_is_transformers_over_top_k() -> None:
    ffn, _ = ffn_of(load_balance_coef=1.0)
    states = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    logits = ffn.router(states.flatten(0, 1))[0].detach()
    expected = float(load_balancing_loss_func((logits,), 6, 2)) / 2
    assert losses(ffn, states) == pytest.approx(expected, abs=1e-6)


def test_every_loss_is_its_definition_and_padding_counts_in_none() -> None:
    ffn, _ = ffn_of(load_balance_coef=0.7, z_loss=0.3, balance={"sequence_aux_coef": 0.5}, router="sigmoid")
    states = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    kept = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    balance_f, balance_p, squares, sequences, number = torch.zeros(6), torch.zeros(6), 0.0, 0.0, 0
    for row, mask in zip(states, kept, strict=True):
        own_f, own_p = torch.zeros(6), torch.zeros(6)
        for token in row[mask.bool()]:
            logits, _, chosen = ffn.router(token[None])
            own_f[chosen[0]] += 1 / 2
            own_p += (logits[0].sigmoid() / logits[0].sigmoid().sum()).detach().float()
            squares += float(logits[0].exp().sum().log() ** 2)
        length = int(mask.sum())
        sequences += float(6 * (own_f / length * own_p / length).sum()) / 2
        balance_f, balance_p, number = balance_f + own_f, balance_p + own_p, number + length
    expected = 0.7 * float(6 * (balance_f / number * balance_p / number).sum()) + 0.3 * squares / number
    expected += 0.5 * sequences
    assert losses(ffn, states, kept) == pytest.approx(expected, rel=1e-5)
    other = states.clone()
    other[0, :2] = 9.0
    assert losses(ffn, other, kept) == pytest.approx(losses(ffn, states, kept), rel=1e-12)
    # A row of nothing but padding is no sequence.
    more, none = torch.cat((states, other[:1])), torch.cat((kept, torch.zeros_like(kept[:1])))
    assert losses(ffn, more, none) == pytest.approx(losses(ffn, states, kept), rel=1e-12)


def test_the_loss_reaches_the_model_while_training_and_only_then() -> None:
    model = built(spec(load_balance_coef=0.5))
    ids = tokens()
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    plain = model.eval()(ids, attention_mask=mask, labels=ids)
    assert plain.aux_loss is None
    trained = model.train()(ids, attention_mask=mask, labels=ids)
    each = [losses(layer.ffn, torch.zeros(1, 1, WIDTH)) for layer in model.model.layers]
    assert len(each) == 3 and float(trained.aux_loss) > 1.0
    assert float(trained.loss) == pytest.approx(float(plain.loss) + float(trained.aux_loss), rel=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_neither_losses_nor_gradients_nor_corrections(reentrant: bool) -> None:
    words = {"load_balance_coef": 0.5, "z_loss": 0.1, "bias_correction": {"enabled": True, "update_rate": 0.01}}
    found = []
    for checkpointing in (False, True):
        model = built(spec(**words)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        for seed in range(2):
            model.zero_grad()
            ids = tokens(seed=seed)
            loss = model(ids, labels=ids, use_cache=False).loss
            loss.backward()
        router = model.model.layers[1].ffn.router
        found.append((loss.detach(), router.weight.grad, router.bias, model.model.layers[0].ffn.experts.down_proj.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert found[0][2].abs().max() > 0


def test_an_accumulated_batch_has_the_loss_of_its_parts() -> None:
    model = built(spec(load_balance_coef=0.5)).train()
    ids = tokens(batch=4)
    total = ids[:, 1:].numel()
    parts = [model(ids[i : i + 1], labels=ids[i : i + 1], num_items_in_batch=total) for i in range(4)]
    alone = [model(ids[i : i + 1], labels=ids[i : i + 1]).aux_loss for i in range(4)]
    assert float(sum(part.aux_loss for part in parts)) == pytest.approx(float(sum(alone)) / 4, rel=1e-5)


def test_corrections_even_out_the_load_without_a_gradient() -> None:
    words = {"router": "sigmoid", "load_balance_coef": 0.0, "bias_correction": {"enabled": True, "update_rate": 0.02}}
    model = built(spec(**words)).train()
    ffn, ids = model.model.layers[0].ffn, tokens(batch=8, time=32)
    spread = []
    for _ in range(60):
        with torch.no_grad():
            model(ids)
        spread.append(float(ffn.last_load.std() / ffn.last_load.mean()))
    assert spread[-1] < 0.5 * spread[0]
    assert ffn.router.bias.grad is None and "bias" not in dict(ffn.router.named_parameters())


def test_a_corrected_router_is_written_in_float32(tmp_path: Any) -> None:
    words = spec(bias_correction={"enabled": True})
    words["model"]["dtype"] = "bfloat16"
    es.compile_to_directory(es.normalize_to_ir(words), tmp_path / "out", seed=0)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    kinds = {name: tensor.dtype for name, tensor in stored.items() if name.endswith("router.bias")}
    assert set(kinds.values()) == {torch.float32} and len(kinds) == 3


def test_corrections_stay_in_float32_and_are_saved(tmp_path: Any) -> None:
    words = spec(bias_correction={"enabled": True})
    words["model"]["dtype"] = "bfloat16"
    model = es.compile_to_hf_model(es.normalize_to_ir(words))
    bias = torch.linspace(0.0, 1.0, 6) + 1e-4
    model.model.layers[0].ffn.router.bias.copy_(bias)
    model.save_pretrained(tmp_path)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True, dtype="bfloat16")
    router = loaded.model.layers[0].ffn.router
    assert torch.equal(router.bias, bias) and torch.equal(router.to(torch.bfloat16).bias, bias)


@pytest.mark.parametrize("name", VARIANTS)
def test_active_parameters_are_those_that_a_token_touches(name: str) -> None:
    model, cost = built(VARIANTS[name]), model_cost(es.normalize_to_ir(VARIANTS[name]))
    idle = 0
    for layer in model.model.layers:
        if layer.routes:
            unused = layer.ffn.experts.n_experts - layer.ffn.router.top_k
            probe = layer.ffn.experts.usage_probe
            # What asks experts which tokens they see is for training alone.
            asked = set() if probe is None else set(probe.parameters())
            idle += sum(each.numel() for each in asked)
            idle += unused * sum(each[0].numel() for each in layer.ffn.experts.parameters() if each not in asked)
    assert cost.total - cost.active == idle


def test_no_token_sees_another_whatever_is_trained() -> None:
    ffn, _ = ffn_of(**KINDS["deepseek"])
    states = torch.randn(1, 7, WIDTH, dtype=torch.float64)
    together = ffn(states)
    apart = torch.cat([ffn(states[:, i : i + 1]) for i in range(7)], dim=1)
    torch.testing.assert_close(together, apart, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"top_k": 7}, "top_k"),
        ({"n_groups": 4, "balance": {"group_limit": 2}}, "n_groups"),
        ({"n_groups": 2}, "n_groups"),
        ({"balance": {"group_limit": 2}}, "balance.group_limit"),
        ({"n_groups": 6, "balance": {"group_limit": 1}}, "balance.group_limit"),
        ({"d_shared": 8}, "d_shared"),
        ({"shared_gate": True}, "shared_gate"),
        ({"gate_limit": 2.0, "gated": False}, "gate_limit"),
        ({"capacity_drop_policy": "pad"}, "capacity_drop_policy"),
        ({"routing": {"hash_salt": 3}}, "routing.hash_salt"),
        ({"routing": {"type": "hash"}, "load_balance_coef": 0.1}, "load_balance_coef"),
        ({"routing": {"type": "hash"}, "balance": {"sequence_aux_coef": 0.1}}, "balance.sequence_aux_coef"),
        ({"routing": {"type": "hash"}, "bias_correction": {"enabled": True}}, "bias_correction.enabled"),
        ({"routing": {"type": "hash"}, "n_groups": 3, "balance": {"group_limit": 2}}, "balance.group_limit"),
    ],
)
def test_words_that_contradict_each_other_are_refused(words: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(**words))
    assert f"{FFN}.{path}" in [problem.path for problem in caught.value.diagnostics]
