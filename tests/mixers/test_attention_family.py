"""Latent, dilated and sink attention against the naive implementation, their declared price, exports and kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.hf import masks
from tests.mixers.layers import run_layer, run_reference
from tests.model.mixers.attention import DILATED, EAGER_ONLY, LATENT, VARIANTS, of
from tests.model.specs import built, changed, tiny_spec, tokens
from tests.model.test_export import PYTHON_OF_OLDEST, lively_directory, offline

every_variant = pytest.mark.parametrize("name", VARIANTS)


@every_variant
def test_forward_and_gradients_are_those_of_the_naive_implementation(name: str) -> None:
    model = built(VARIANTS[name]).double()
    mixer = model.model.layers[0].mixer
    states = torch.randn(2, 13, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(2, 13, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for run in (run_layer, run_reference):
        leaves = {key: value.detach().clone().requires_grad_() for key, value in mixer.named_parameters()}
        given = states.clone().requires_grad_()
        if run is run_layer:
            mixer.zero_grad()
            output = run_layer(model, given)
            leaves = dict(mixer.named_parameters())
        else:
            output = run_reference(model, leaves, given)
        (output * goal).sum().backward()
        results.append((output.detach(), given.grad, {key: leaf.grad for key, leaf in leaves.items()}))
    (ours, ours_input, ours_weights), (naive, naive_input, naive_weights) = results
    # Angles are computed in float32 whatever the model's dtype.
    torch.testing.assert_close(ours, naive, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours_input, naive_input, rtol=0, atol=1e-5)
    for key, gradient in naive_weights.items():
        torch.testing.assert_close(ours_weights[key], gradient, rtol=1e-5, atol=1e-5, msg=key)


@every_variant
def test_parameters_and_cache_bytes_are_the_declared_ones(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    model = built(VARIANTS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(ir)
    for context in (1, 6, 7, 8, 20):
        with torch.no_grad():
            cache = model(tokens(batch=3, time=context), use_cache=True).past_key_values
        for layer, cost in zip(cache.layers, model_cost(ir).layers, strict=True):
            kept = context if cost.mixer.state_window is None else min(context, cost.mixer.state_window)
            assert layer.keys.nbytes + layer.values.nbytes == 3 * kept * cost.mixer.state_bytes_per_token
        assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == model_cost(ir).cache_bytes(
            context, batch=3
        )


@every_variant
def test_a_prefill_costs_what_its_tokens_see(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    cost = model_cost(ir)
    for context in (1, 5, 23):
        expected = 0
        for layer, price in zip(ir.layers, cost.layers, strict=True):
            window, step = layer.mixer.params["window"] or context, layer.mixer.params["window_dilation"] or 1
            pairs = sum(
                1
                for now in range(context)
                for then in range(now + 1)
                if now - then < window and (now - then) % step == 0
            )
            expected += price.mixer.flops_per_token_per_context * pairs
        fixed = sum(part.flops_per_token for layer in cost.layers for part in layer.parts()) + cost.head.flops_per_token
        assert cost.prefill_flops(context) == expected + fixed * context


@every_variant
def test_a_long_input_decodes_as_it_is_read(name: str) -> None:
    model = built(changed(VARIANTS[name], {"model.max_seq_len": 512}))
    ids = tokens(batch=1, time=260)
    with torch.no_grad():
        full = model(ids, use_cache=False).logits
        first = model(ids[:, :250], use_cache=True)
        parts = [first.logits]
        for index in range(250, 260):
            parts.append(model(ids[:, index : index + 1], past_key_values=first.past_key_values).logits)
    assert torch.isfinite(full).all()
    assert (torch.cat(parts, 1) - full).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["latent_full", "latent_sinks", "latent_window", "dilated", "sinks"])
def test_the_whole_forward_compiles_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits, atol=1e-5)


@pytest.mark.parametrize("name", ["latent_full", "dilated", "sinks"])
def test_generate_compiles_its_step_over_a_static_cache(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(time=6)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    step = torch.compile(model.forward, fullgraph=True, backend="eager")
    model.forward = step
    assert torch.equal(model.generate(ids, cache_implementation="static", **options), expected)


@pytest.mark.parametrize("name", ["latent", "latent_window", "dilated", "attention_hybrid", "sinks"])
def test_assisted_decoding_and_chunked_prefills_give_the_greedy_tokens(name: str) -> None:
    model, assistant = built(VARIANTS[name]), built(changed(tiny_spec(), {"layer_schedule.0.repeat": 1}))
    ids = tokens(batch=1, time=12)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), expected)
    assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=2, **options), expected)
    static = {"cache_implementation": "static", "disable_compile": True}
    for cache in ({}, static):
        assert torch.equal(model.generate(ids, prefill_chunk_size=5, **cache, **options), expected)


@pytest.mark.skipif(
    PYTHON_OF_OLDEST is None, reason="EULERSTACK_OLDEST_PYTHON names no interpreter; tox -e oldest does"
)
@pytest.mark.parametrize("name", ["attention_hybrid", "latent_sinks", "sinks_fixed", "dilated_alibi"])
def test_a_directory_generates_the_same_tokens_on_the_oldest_transformers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True, python=PYTHON_OF_OLDEST)
    with torch.no_grad():
        assert (found["logits"] - model(ids).logits).abs().max() < 1e-5
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))


@pytest.mark.parametrize("name", ["attention_hybrid", "latent_sinks", "sinks_fixed", "dilated_alibi"])
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))


def test_an_export_holds_the_attention_that_it_uses_and_no_other(tmp_path: Path) -> None:
    texts = {}
    for name, changes in {"plain": {}, "latent": of(**LATENT)}.items():
        es.compile_to_directory(es.normalize_to_ir(changed(tiny_spec(), changes)), tmp_path / name)
        texts[name] = (tmp_path / name / "modeling_eulerstack.py").read_text()
    assert "class LatentAttention(" not in texts["plain"] and "class Attention(" in texts["plain"]
    assert "class LatentAttention(" in texts["latent"] and "class Attention(" not in texts["latent"]


@pytest.mark.parametrize("name", ["latent_full", "dilated", "latent_dilated"])
def test_flex_attention_gives_the_same_numbers(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens()
    with torch.no_grad():
        expected = model(ids).logits
        model.set_attn_implementation("flex_attention")
        assert (model(ids).logits - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", sorted(EAGER_ONLY))
def test_what_sdpa_can_not_compute_refuses_it(name: str) -> None:
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        built(VARIANTS[name]).set_attn_implementation("sdpa")


def test_a_dilated_window_refuses_flash_attention() -> None:
    with pytest.raises(ValueError, match="[Ff]lash"):
        built(VARIANTS["dilated"]).set_attn_implementation("flash_attention_2")


def test_sinks_take_only_flash_kernels_that_know_them() -> None:
    assert built(VARIANTS["dilated_wide"])._compatible_flash_implementations is None
    assert "flash_attention_2" not in built(VARIANTS["sinks"])._compatible_flash_implementations


def test_each_kind_of_mask_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec()
    kinds = {"near": {"window": 4}, "gaps": DILATED, "wide": {**DILATED, "window_dilation": 2}, "all": {}}
    ffn = {"type": "gated_mlp"}
    spec["layer_templates"] = {
        name: {"mixer": {"type": "attention", "attention": attention}, "ffn": ffn} for name, attention in kinds.items()
    }
    spec["layer_schedule"] = [{"template": name, "repeat": 2} for name in kinds] + [{"template": "gaps"}]
    made: list[Any] = []
    for function in ("create_causal_mask", "create_sliding_window_causal_mask"):
        original = getattr(masks, function)

        def counted(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            made.append(original)
            return original(*args, **kwargs)

        monkeypatch.setattr(masks, function, counted)
    with torch.no_grad():
        built(spec)(tokens())
    assert len(made) == 4
