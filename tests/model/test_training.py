"""Loss, gradients, accumulation, checkpointing, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import eulerstack as es
from eulerstack.testing.training import check_bfloat16, check_gradients
from tests.model.specs import built, changed, follow_routes, tiny_spec, tokens
from tests.model.variants import ATTENTION, CHOOSING, VARIANTS


def test_accumulated_gradients_equal_those_of_one_big_batch() -> None:
    model = built(tiny_spec())
    ids = tokens(batch=4)
    labels = ids.clone()
    labels[0, 3:12] = -100
    labels[2, :9] = -100
    count = int((labels[:, 1:] != -100).sum())
    whole = model(ids, labels=labels).loss
    whole.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        loss = model(ids[rows], labels=labels[rows], num_items_in_batch=count).loss
        loss.backward()
        total += float(loss.detach())
    assert total == pytest.approx(float(whole.detach()), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name


def every_loss() -> dict[str, Any]:
    """A spec in which a training pass adds to the loss whatever is a mean over tokens or over sequences."""
    branches = {"near": {"type": "attention", "attention": {"window": 4}}, "far": {"type": "retnet"}}
    moe = {"type": "moe", "experts": 4, "top_k": 2, "d_expert": 8, "z_loss": 0.5, "load_balance_coef": 0.0}
    return tiny_spec(
        layer_templates={
            "routed": {
                "mixer": {"type": "attention"},
                "ffn": {**moe, "balance": {"sequence_aux_coef": 0.7}},
            },
            "branched": {
                "mixer": {"type": "branched", "branched": {"branches": branches, "selector": {"type": "top_k"}}},
                "ffn": {"type": "none"},
            },
        },
        layer_schedule=[
            {"template": "routed", "depth_gating": {"capacity": 0.5, "router": "top_k"}},
            {
                "parallel": [
                    {"stream": "a", "body": [{"template": "routed"}]},
                    {"stream": "b", "body": [{"template": "branched"}]},
                ],
                "merge": {"type": "add"},
            },
            {"integrator": {"type": "ode_euler", "steps": 2, "body": "routed"}},
        ],
        head={"type": "causal_lm_mtp", "mtp": {"n_predict": 2, "head_template": "routed", "train_loss_weight": 0.5}},
        training_hints={
            "router_aux_loss_coef": 0.3,
            "differentiation_objectives": {"usage_probe_coef": 0.4},
        },
    )


def test_all_that_a_training_pass_adds_to_the_loss_accumulates() -> None:
    model = built(every_loss()).train()
    model.gradient_checkpointing_enable()
    ids = tokens(batch=3)
    whole = model(ids, labels=ids, use_cache=False)
    whole.loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    parts = [model(row[None], labels=row[None], use_cache=False, num_items_in_batch=ids[:, 1:].numel()) for row in ids]
    sum(part.loss for part in parts).backward()
    for name in ("loss", "aux_loss"):
        torch.testing.assert_close(sum(part[name] for part in parts), whole[name], atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=0, msg=name)
    # Evaluation reports the language model's loss alone.
    model.eval()
    assert model(ids, labels=ids).aux_loss is None


def test_the_loss_is_the_mean_negative_log_likelihood_of_the_next_token() -> None:
    model = built(tiny_spec())
    ids = tokens()
    output = model(ids, labels=ids)
    likelihood = torch.log_softmax(output.logits[:, :-1].double(), -1).gather(-1, ids[:, 1:, None])
    assert float(output.loss.detach()) == pytest.approx(-float(likelihood.mean()), abs=1e-6)


@pytest.mark.parametrize(
    "name", ["plain", "mixed_windows", "parallel_sandwich", "alibi", "hyper_between", "mtp", "mtp_template"]
)
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    ids = tokens()
    gradients = []
    for checkpointing in (False, True):
        model = built(VARIANTS[name]).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_checkpointing_in_the_hints_is_on_in_a_loaded_export(tmp_path) -> None:
    ids = tokens()
    gradients = []
    for checkpointing in (False, True):
        spec = changed(tiny_spec(), {"training_hints.checkpointing": checkpointing})
        es.compile_to_directory(es.normalize_to_ir(spec), tmp_path / str(checkpointing), seed=0)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / str(checkpointing), trust_remote_code=True)
        assert model.model.gradient_checkpointing == checkpointing
        assert all(layer.gradient_checkpointing == checkpointing for layer in model.model.layers)
        model.train()(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        # Decoding keeps its cache.
        with torch.no_grad():
            assert model.eval()(ids, use_cache=True).past_key_values.get_seq_length() == ids.shape[1]
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient_that_finite_differences_confirm(name: str) -> None:
    check_gradients(built(VARIANTS[name]), CHOOSING)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_stays_near_float32_and_trains(name: str) -> None:
    # Rounding may turn a choice of experts over: all take the exact model's.
    check_bfloat16(lambda: built(VARIANTS[name]), follow_routes)


def test_rotation_angles_stay_exact_when_the_model_is_cast() -> None:
    model = built(tiny_spec())
    expected = model.model.rotary_embs[0].inv_freq.clone()
    assert torch.equal(model.to(torch.bfloat16).model.rotary_embs[0].inv_freq, expected)


def test_logits_to_keep_gives_the_last_logits_only() -> None:
    model = built(tiny_spec())
    ids = tokens()
    with torch.no_grad():
        full = model(ids).logits
        assert torch.allclose(model(ids, logits_to_keep=1).logits, full[:, -1:], atol=1e-6)
        assert torch.allclose(model(ids, logits_to_keep=torch.tensor([2, 5])).logits, full[:, [2, 5]], atol=1e-6)


def test_dropout_acts_only_while_training() -> None:
    model = built(changed(tiny_spec(), {"training_hints.dropout": 0.4}))
    ids = tokens()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)
        assert not torch.equal(model.train()(ids).logits, model(ids).logits)


def test_hidden_states_and_attentions_are_recorded() -> None:
    model = built(tiny_spec())
    model.set_attn_implementation("eager")
    output = model(tokens(), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 3, 17, 17)] * 3


def test_the_whole_forward_compiles_into_one_graph() -> None:
    for name in ("plain", "mixed_windows", "alibi", "parallel_sandwich"):
        model = built(VARIANTS[name])
        ids = tokens()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        with torch.no_grad():
            assert torch.allclose(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "refused", "flag", "message"),
    [
        ({f"{ATTENTION}.softcap": 2.0}, "sdpa", "_supports_sdpa", "scaled_dot_product_attention"),
        ({"embedding.positional": "alibi"}, "flex_attention", "_supports_flex_attn", "flex_attention"),
        ({"embedding.positional": "alibi"}, "flash_attention_2", "_supports_flash_attn", "Flash Attention 2"),
        (
            {f"{ATTENTION}.window": 8, f"{ATTENTION}.window_mode": "dilated", f"{ATTENTION}.window_dilation": 3},
            "flash_attention_2",
            "_supports_flash_attn",
            "Flash Attention 2",
        ),
    ],
)
def test_an_attention_implementation_that_would_change_the_function_is_refused(changes, refused, flag, message) -> None:
    # A plain model has it, as far as it depends on the model: only the package may be missing.
    assert getattr(built(tiny_spec()), flag) is True
    model = built(changed(tiny_spec(), changes))
    assert getattr(model, flag) is False and getattr(model.model, flag) is False
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=f"does not support .*{message}"):
        model.set_attn_implementation(refused)
    assert model.config._attn_implementation == before


def test_flex_attention_gives_the_same_numbers() -> None:
    model = built(VARIANTS["mixed_windows"])
    ids = tokens()
    with torch.no_grad():
        expected = model(ids).logits
        model.set_attn_implementation("flex_attention")
        assert (model(ids).logits - expected).abs().max() < 1e-5
