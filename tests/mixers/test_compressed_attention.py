"""Compressed attention against transformers' DeepSeek-V4 and the naive implementation; its cache, its price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import DynamicCache, StaticCache  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.errors import CompatibilityError  # noqa: E402
from eulerstack_mixers.modules import compressed_attention  # noqa: E402
from eulerstack_mixers.modules.compressed_attention import highest_blocks  # noqa: E402
from tests.mixers.layers import run_layer, run_reference  # noqa: E402
from tests.model.mixers.attention import of  # noqa: E402
from tests.model.mixers.compressed_attention import CSA, HCA, INDEXER, OUTPUT, VARIANTS, with_words  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402
from tests.model.test_export import lively_directory, offline  # noqa: E402
from tests.reference.test_models_agree import ExactRotation  # noqa: E402

every_variant = pytest.mark.parametrize("name", VARIANTS)
ALONE = sorted(set(VARIANTS) - {"compressed_hybrid"})

THERE = {
    "indexer.compressor": "compressor.indexer",
    "indexer.q_proj": "compressor.indexer.q_b_proj",
    "indexer.weights_proj": "compressor.indexer.scorer.weights_proj",
    "sinks.logits": "sinks",
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def name_there(name: str) -> str:
    for ours, theirs in THERE.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def is_nothing(gradient: Any) -> bool:
    return gradient is None or bool((gradient == 0).all())


def deepseek_layer(kind: str, length: int, yarn: bool) -> tuple[Any, Any]:
    """transformers' attention layer of a kind and its rotary module; 4 heads of 12 channels at width 36."""
    module = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
    from transformers import DeepseekV4Config

    layer_type = {
        "csa": "compressed_sparse_attention", "hca": "heavily_compressed_attention", "shared": "sliding_attention"
    }[kind]  # fmt: skip
    config = DeepseekV4Config(
        hidden_size=36,
        num_attention_heads=4,
        head_dim=12,
        q_lora_rank=21,
        o_groups=2,
        o_lora_rank=7,
        num_hidden_layers=1,
        layer_types=[layer_type],
        mlp_layer_types=["moe"],
        compress_rates={layer_type: length, "compressed_sparse_attention": length},
        sliding_window=5,
        index_n_heads=16,
        index_head_dim=14,
        index_topk=3,
        rms_norm_eps=1e-5,
        partial_rotary_factor=0.5,
        compress_rope_theta=500.0,
        rope_theta=500.0,
        max_position_embeddings=64,
        rope_parameters=dict(YARN) if yarn else None,
        attn_implementation="eager",
    )
    return module.DeepseekV4Attention(config, 0).eval(), module.DeepseekV4RotaryEmbedding(config)


def our_layer(kind: str, length: int, yarn: bool) -> Any:
    """The model of one such layer in this language."""
    compression: dict[str, Any] = {"type": kind} if kind == "shared" else {"type": kind, "m_block": length}
    if kind == "csa":
        compression |= {"top_k_blocks": 3, "indexer": INDEXER}
    scaling = {"type": "yarn", "factor": 4.0, "original_max_seq_len": 16, "attention_factor": 1.0} if yarn else None
    rope = {"theta": 500.0, "partial_factor": 0.5, "interleaved": True, "scaling": scaling}
    words = of(window=5, q_latent_dim=21, o_latent_dim=7, o_groups=2, attention_sinks={}, rope=rope,
               compression=compression)  # fmt: skip
    return built(changed(tiny_spec(), {**words, "model.n_heads": 4, "model.n_kv_heads": 1, "model.head_dim": 12}))


@pytest.mark.parametrize(
    ("kind", "length", "yarn"),
    [(*sizes, yarn) for sizes in (("hca", 4), ("hca", 7), ("csa", 2), ("csa", 3)) for yarn in (False, True)]
    + [("shared", 1, False)],
)
@pytest.mark.parametrize("time", [1, 23])
def test_a_layer_is_that_of_deepseek_v4(kind: str, length: int, yarn: bool, time: int) -> None:
    model = our_layer(kind, length, yarn)
    ours = model.model.layers[0].mixer
    theirs, rotary = deepseek_layer(kind, length, yarn)
    shapes = {name: parameter.shape for name, parameter in theirs.named_parameters()}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            there = theirs.get_parameter(name_there(name))
            there.copy_(parameter.reshape(there.shape))
            assert shapes.pop(name_there(name)).numel() == parameter.numel()
    assert not shapes
    states = torch.randn(2, time, 36, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(time)[None]
    outputs, gradients = [], []
    for module in (ours, theirs):
        given = states.clone().requires_grad_()
        if module is ours:
            output = run_layer(model, given)
        else:
            distance = torch.arange(time)[:, None] - torch.arange(time)
            hidden = (distance < 0) | (distance >= 5)
            mask = torch.zeros(2, 1, time, time).masked_fill(hidden, torch.finfo(torch.float32).min)
            rotation = {each: rotary(given, positions, layer_type=each) for each in ("main", "compress")}
            output = theirs(given, rotation, positions.expand(2, -1), mask)[0]
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(given.grad)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)
    for name, parameter in ours.named_parameters():
        there = theirs.get_parameter(name_there(name)).grad
        if name.startswith("indexer"):
            # A choice of blocks has no gradient.
            assert parameter.grad is None and there is None
        elif there is None:
            # Before the first block is complete there is nothing to learn from.
            assert time < length and is_nothing(parameter.grad), name
        else:
            torch.testing.assert_close(parameter.grad.reshape(there.shape), there, atol=1e-5, rtol=0, msg=name)


@every_variant
def test_forward_and_gradients_are_those_of_the_naive_implementation(name: str) -> None:
    model = built(VARIANTS[name]).double()
    mixer = model.model.layers[0].mixer
    params = model.config.architecture["blocks"][0]["mixer"]["params"]
    if mixer.rotary is not None:
        # Angles are computed in float32 otherwise.
        mixer.rotary = ExactRotation(mixer.head_dim, params["rope"])
    states = torch.randn(2, 13, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(2, 13, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for run in (run_layer, run_reference):
        mixer.zero_grad()
        given = states.clone().requires_grad_()
        weights = dict(mixer.named_parameters())
        output = run_layer(model, given) if run is run_layer else run_reference(model, weights, given)
        (output * goal).sum().backward()
        results.append((output.detach(), given.grad, {key: leaf.grad for key, leaf in weights.items()}))
    (ours, ours_input, ours_weights), (naive, naive_input, naive_weights) = results
    torch.testing.assert_close(ours, naive, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours_input, naive_input, rtol=1e-8, atol=1e-8)
    for key, gradient in naive_weights.items():
        if gradient is None:
            assert is_nothing(ours_weights[key]), key
        else:
            torch.testing.assert_close(ours_weights[key], gradient, rtol=1e-8, atol=1e-8, msg=key)


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_cache_bytes_are_the_declared_ones(name: str, dtype: str) -> None:
    ir = es.normalize_to_ir(changed(VARIANTS[name], {"model.dtype": dtype}))
    model, cost = es.compile_to_hf_model(ir), model_cost(ir)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.total
    cache, seen = None, 0
    for more in (1, 1, 4, 1, 13, 20):
        with torch.no_grad():
            cache = model(tokens(batch=3, time=more), past_key_values=cache, use_cache=True).past_key_values
        seen += more
        held = sum(
            layer.state_bytes if hasattr(layer, "slots") else layer.keys.nbytes + layer.values.nbytes
            for layer in cache.layers
        )
        assert held == cost.cache_bytes(seen, batch=3), seen


def test_the_cache_holds_blocks_a_window_and_the_unfinished_block() -> None:
    model = built(VARIANTS["hca"])
    with torch.no_grad():
        layer = model(tokens(time=20), use_cache=True).past_key_values.layers[0]
    shapes = {name: tuple(state.shape) for name, state in layer.slots.items()}
    assert shapes == {"window": (2, 4, 12), "block": (2, 6, 12), "block_tail_0": (2, 2, 24), "count": (2,)}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("context", [1, 2, 3, 7, 40])
def test_a_prompt_costs_what_its_tokens_do_one_at_a_time(name: str, context: int) -> None:
    price = model_cost(es.normalize_to_ir(VARIANTS[name])).layers[0].mixer
    assert price.decode_flops is not None and price.prefill_flops is not None
    assert price.prefill_flops(context) == sum(price.decode_flops(seen) for seen in range(1, context + 1))


@pytest.mark.parametrize(("block", "seen", "scored"), [(HCA, 5 + 33, 0), (CSA, 4 + 3, 50)], ids=["hca", "csa"])
def test_a_token_pays_for_its_window_its_blocks_and_what_it_chooses_from(
    block: dict[str, Any], seen: int, scored: int
) -> None:
    price = model_cost(es.normalize_to_ir(changed(tiny_spec(), of(**block)))).layers[0].mixer
    assert price.decode_flops is not None
    assert price.decode_flops(100) == price.flops_per_token + 4 * 36 * seen + 2 * 16 * 15 * scored


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


@pytest.mark.parametrize("name", ["hca", "csa", "csa_full", "compressed_hybrid"])
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_rows_of_different_lengths_decode_as_they_would_alone(name: str, kind: type) -> None:
    model = built(VARIANTS[name]).double()
    model.set_attn_implementation("eager")
    ids, lengths = tokens(batch=3, time=24), (4, 9, 13)
    mask = torch.ones(3, 24, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, : 13 - length] = 0
    if name != "compressed_hybrid":
        # A hole in the middle of a row is padding too; a stock window counts it.
        mask[1, 10:12] = 0
    cache = kind(config=model.config, **({"max_cache_len": 30} if kind is StaticCache else {}))
    parts, start = [], 0
    with torch.no_grad():
        for length in (13, 1, 1, 5, 4):
            end = start + length
            output = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache)
            parts.append(output.logits)
            start = end
        together = torch.cat(parts, 1)
        for row in range(3):
            kept = mask[row].bool()
            alone = model(ids[row : row + 1, kept], use_cache=False).logits[0]
            torch.testing.assert_close(together[row, kept], alone, atol=1e-7, rtol=0)


def test_weights_that_are_asked_for_are_those_of_all_keys() -> None:
    model = built(changed(VARIANTS["hca"], {"model.max_seq_len": 512}))
    model.set_attn_implementation("eager")
    ids = tokens(batch=1, time=400)
    with torch.no_grad():
        asked, plain = model(ids, output_attentions=True), model(ids)
    assert asked.attentions[0].shape == (1, 3, 400, 400 + 133)
    torch.testing.assert_close(asked.attentions[0].sum(-1), torch.ones(1, 3, 400))
    torch.testing.assert_close(asked.logits, plain.logits, atol=1e-5, rtol=0)


def test_scores_of_some_tokens_at_a_time_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = built(VARIANTS["csa"]), []
    model.model.layers[0].mixer.indexer.register_forward_hook(lambda module, given, output: found.append(output))
    for most in (2**22, 300):
        monkeypatch.setattr(compressed_attention, "INDEX_SCORES_AT_ONCE", most)
        model(tokens(), use_cache=False)
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


def test_equal_scores_choose_the_earlier_blocks() -> None:
    scores = torch.tensor([[[0.0, 1.0, 0.0, 0.0, 2.0]]])
    visible = torch.tensor([[[True, True, True, True, False]]])
    assert highest_blocks(scores, visible, 2).tolist() == [[[True, True, False, False, False]]]
    assert torch.equal(highest_blocks(scores, visible, 5), visible)
    assert torch.equal(highest_blocks(scores, visible, 4), visible)
    assert not highest_blocks(scores, torch.zeros_like(visible), 2).any()


def test_a_block_is_seen_by_the_token_that_completes_it_and_not_before() -> None:
    model = built(
        changed(tiny_spec(), {**of(**with_words(HCA, m_block=6) | {"window": 2}), "layer_schedule.0.repeat": 1})
    )
    mixer, states = model.model.layers[0].mixer, torch.randn(1, 14, 36, generator=torch.Generator().manual_seed(0))
    states.requires_grad_()
    reach = []
    for now in (4, 5, 10, 11):
        (gradient,) = torch.autograd.grad(mixer(states)[0][0, now].square().sum(), states)
        reach.append(int((gradient[0].abs().sum(-1) > 0).nonzero()[0]))
    assert reach == [3, 0, 0, 0]
    (gradient,) = torch.autograd.grad(mixer(states)[0][0, 10].square().sum(), states)
    # Tokens 6 … 8 wait in an unfinished block, and have left the window.
    assert gradient[0, 6:9].abs().max() == 0 and gradient[0, 9:11].abs().min() > 0


@pytest.mark.parametrize("name", ["hca_full", "csa_full"])
def test_scores_pools_and_choices_stay_in_float32_below_it(name: str) -> None:
    model = built(VARIANTS[name]).to(torch.bfloat16)
    found: dict[str, Any] = {}
    mixer = model.model.layers[0].mixer
    pooled = mixer.compressor.pooled
    mixer.compressor.pooled = lambda *args: found.setdefault("pooled", pooled(*args))
    if mixer.indexer is not None:
        mixer.indexer.register_forward_hook(lambda module, given, output: found.update(scores=output))
    with torch.no_grad():
        model(tokens())
        with torch.autocast("cpu", torch.bfloat16):
            model(tokens())
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_the_indexers_dtype_is_that_of_its_keys() -> None:
    for dtype in ("bfloat16", "float16", "float32"):
        block = with_words(CSA, indexer={**INDEXER, "dtype": dtype})
        with torch.no_grad():
            layer = built(changed(tiny_spec(), of(**block)))(tokens(), use_cache=True).past_key_values.layers[0]
        assert layer.slots["index"].dtype == getattr(torch, dtype)


@pytest.mark.parametrize("name", ["hca", "csa_full", "compressed_hybrid"])
def test_the_whole_forward_compiles_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens()
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["hca_full", "csa", "compressed_hybrid"])
def test_compiled_decoding_over_a_static_cache_gives_the_same_tokens(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(batch=1, time=6)
    plain = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    cache, current, generated = StaticCache(config=model.config, max_cache_len=20), ids, [ids]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        for _ in range(6):
            current = compiled(current, past_key_values=cache).logits[:, -1:].argmax(-1)
            generated.append(current)
    torch._dynamo.reset()
    assert torch.equal(torch.cat(generated, 1), plain)


def test_a_static_cache_that_is_full_says_so() -> None:
    model = built(VARIANTS["hca"])
    cache = StaticCache(config=model.config, max_cache_len=9)
    with torch.no_grad():
        model(tokens(time=9), past_key_values=cache)
        with pytest.raises(RuntimeError, match="no room"):
            for _ in range(3):
                model(tokens(time=1), past_key_values=cache)


@pytest.mark.parametrize("name", ["hca_sinks", "csa_full", "compressed_hybrid"])
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    source = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert ("class LightningIndexer" in source) == (name != "hca_sinks")
    assert ("class AttentionSinks" in source) == (name == "hca_sinks")


def test_what_leaves_out_sinks_or_masks_is_refused() -> None:
    plain, with_sinks = built(VARIANTS["hca"]), built(VARIANTS["hca_sinks"])
    assert plain._supports_sdpa and not with_sinks._supports_sdpa
    assert not (plain._supports_flash_attn or plain._supports_flex_attn or plain._supports_attention_backend)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({**HCA, "latent_dim": 16}, "latent_dim"),
        ({"compression": {"type": "shared", "m_block": 3}}, "compression.m_block"),
        ({"compression": {"type": "shared", "pool": "mean"}}, "compression.pool"),
        ({**HCA, "qk_norm": "head"}, "qk_norm"),
        ({**HCA, "window_mode": "dilated", "window": 8, "window_dilation": 2}, "window_mode"),
        (with_words(HCA, top_k_blocks=3), "compression.top_k_blocks"),
        (with_words(HCA, indexer={}), "compression.indexer"),
        (with_words(CSA, indexer={"d_per_head": 11}), "compression.indexer.d_per_head"),
        ({**HCA, "o_groups": 3}, "o_groups"),
        ({**HCA, **OUTPUT, "o_groups": 2}, "o_groups"),
        ({**HCA, "rope_head_dim": 4}, "rope_head_dim"),
        ({"o_latent_dim": 4}, "o_latent_dim"),
        ({"q_latent_dim": 4}, "q_latent_dim"),
    ],
    ids=str,
)
def test_words_that_contradict_a_compression_are_refused(words: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(changed(tiny_spec(), of(**words)))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.path == f"layer_templates.decoder.mixer.attention.{path}"
    assert diagnostic.see in ("reference/errors.md#compression", "reference/errors.md#latent-attention")


def test_a_bias_on_scores_is_refused_beside_blocks() -> None:
    with pytest.raises(CompatibilityError, match="alibi"):
        es.validate_v2(changed(tiny_spec(), {**of(**HCA), "embedding.positional": "alibi"}))


def test_sizes_of_deepseek_v4_are_the_defaults() -> None:
    hca, csa = (
        es.normalize_to_ir(changed(tiny_spec(), of(compression={"type": kind}))).layers[0].mixer.params
        for kind in ("hca", "csa")
    )
    assert (hca["window"], hca["compression"]["m_block"], hca["compression"]["indexer"]) == (128, 128, None)
    assert (csa["window"], csa["compression"]["m_block"], csa["compression"]["top_k_blocks"]) == (128, 4, 512)
    assert dict(csa["compression"]["indexer"]) == {
        "arch": "lightning", "n_heads": 64, "d_per_head": 128, "dtype": "float32", "kl_coef": 1.0
    }  # fmt: skip
