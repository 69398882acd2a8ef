"""Native sparse attention against the naive implementation; what it selects, what its cache holds, its price."""

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
from tests.mixers.layers import run_layer, run_reference  # noqa: E402
from tests.model.mixers.attention import of  # noqa: E402
from tests.model.mixers.compressed_attention import HCA  # noqa: E402
from tests.model.mixers.native_sparse_attention import NSA, VARIANTS, with_words  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402
from tests.model.test_export import lively_directory, offline  # noqa: E402
from tests.reference.test_models_agree import ExactRotation  # noqa: E402

every_variant = pytest.mark.parametrize("name", VARIANTS)
ALONE = sorted(set(VARIANTS) - {"nsa_hybrid"})
ATTENTION = "layer_templates.decoder.mixer.attention"


@every_variant
def test_forward_and_gradients_are_those_of_the_naive_implementation(name: str) -> None:
    model = built(VARIANTS[name]).double()
    mixer = model.model.layers[0].mixer
    if mixer.rotary is not None:
        # Angles are computed in float32 otherwise.
        mixer.rotary = ExactRotation(mixer.head_dim, model.config.architecture["blocks"][0]["mixer"]["params"]["rope"])
    states = torch.randn(2, 17, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(2, 17, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
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
        # Where no block is complete, pools have nothing to learn from.
        expected = torch.zeros_like(ours_weights[key]) if gradient is None else gradient
        torch.testing.assert_close(ours_weights[key], expected, rtol=1e-8, atol=1e-8, msg=key)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_cache_bytes_are_the_declared_ones(name: str, dtype: str) -> None:
    ir = es.normalize_to_ir(changed(VARIANTS[name], {"model.dtype": dtype}))
    model, cost = es.compile_to_hf_model(ir), model_cost(ir)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.total
    cache, seen = None, 0
    for more in (1, 1, 4, 1, 13, 30):
        with torch.no_grad():
            cache = model(tokens(batch=3, time=more), past_key_values=cache, use_cache=True).past_key_values
        seen += more
        assert sum(layer.state_bytes for layer in cache.layers) == cost.cache_bytes(seen, batch=3), seen


def test_shared_keys_need_no_window_of_their_own_in_the_cache() -> None:
    held = []
    for shared in (False, True):
        model = built(changed(tiny_spec(), of(**with_words(shared_kv=shared))))
        with torch.no_grad():
            layer = model(tokens(time=20), use_cache=True).past_key_values.layers[0]
        held.append({name: tuple(state.shape) for name, state in layer.slots.items()})
    assert held[1] == {"block_tail": (2, 1, 24), "block": (2, 19, 24), "selected": (2, 20, 24), "count": (2,)}
    assert held[0] == {**held[1], "window": (2, 3, 24)}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("context", [1, 2, 3, 8, 9, 10, 40, 300])
def test_a_prompt_costs_what_its_tokens_do_one_at_a_time(name: str, context: int) -> None:
    price = model_cost(es.normalize_to_ir(VARIANTS[name])).layers[0].mixer
    assert price.decode_flops is not None and price.prefill_flops is not None
    assert price.prefill_flops(context) == sum(price.decode_flops(seen) for seen in range(1, context + 1))


def read_by(model: Any, states: torch.Tensor, reading: int) -> list[list[int]]:
    """The tokens that the last token's output depends on through one reading alone, and those it was made from."""
    mixer = model.model.layers[0].mixer
    with torch.no_grad():
        gates = mixer.g_proj.weight.view(mixer.n_heads, 3, -1)
        gates.zero_()
    mixer.g_proj.register_forward_hook(
        lambda module, given, output: torch.where(torch.arange(9) % 3 == reading, 20.0, -1e9).expand_as(output)
    )
    given = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mixer(given)[0, -1].square().sum(), given)
    return (gradient[0].abs().sum(-1) > 0).nonzero().flatten().tolist()


def test_each_reading_sees_its_own_tokens() -> None:
    states = torch.randn(1, 20, 36, generator=torch.Generator().manual_seed(3))
    spec = changed(tiny_spec(), of(**with_words(m_block=4, stride=2, select_block=4, top_k_blocks=3)))
    # The last of 20 tokens completes the block of tokens 16 … 19.
    assert read_by(built(spec), states, 0) == list(range(20))
    # The first block, the one before its own, and its own; top_k_blocks leaves room for no other.
    assert read_by(built(spec), states, 1) == [*range(4), *range(12, 20)]
    assert read_by(built(spec), states, 2) == list(range(16, 20))


def test_a_fourth_block_is_the_one_that_the_compressed_reading_weighs_most() -> None:
    spec = changed(tiny_spec(), of(**with_words(m_block=4, stride=4, select_block=4, top_k_blocks=4)))
    model = built(spec)
    mixer = model.model.layers[0].mixer
    states = torch.randn(1, 24, 36, generator=torch.Generator().manual_seed(4))
    seen: dict[str, Any] = {}
    read_blocks = mixer.read_blocks
    mixer.read_blocks = lambda *given: seen.setdefault("found", read_blocks(*given))
    with torch.no_grad():
        mixer(states)
    weights = seen["found"][1][0, 0, -1]
    # Every head of the group that shares keys gives a weight of 1.
    assert mixer.n_kv_heads == 1 and float(weights.sum()) == pytest.approx(mixer.n_heads)
    favourite = 1 + int(weights[1:4].argmax())
    expected = sorted({*range(4), *range(16, 24), *range(4 * favourite, 4 * favourite + 4)})
    model = built(spec)
    # Through the selected reading alone, and through the queries and keys that chose, which have no gradient.
    assert read_by(model, states, 1) == expected


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


@pytest.mark.parametrize("name", ["nsa", "nsa_shared", "nsa_mean"])
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_rows_of_different_lengths_decode_as_they_would_alone(name: str, kind: type) -> None:
    model = built(VARIANTS[name]).double()
    ids, lengths = tokens(batch=3, time=24), (4, 9, 13)
    mask = torch.ones(3, 24, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, : 13 - length] = 0
    # A hole in the middle of a row is padding too.
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


@pytest.mark.parametrize("name", ["nsa_shared", "nsa_hybrid"])
def test_the_forward_and_decoding_over_a_static_cache_compile_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(batch=1, time=6)
    plain = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    cache, current, generated = StaticCache(config=model.config, max_cache_len=20), ids, [ids]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)
        for _ in range(6):
            current = compiled(current, past_key_values=cache).logits[:, -1:].argmax(-1)
            generated.append(current)
    torch._dynamo.reset()
    assert torch.equal(torch.cat(generated, 1), plain)


def test_importance_is_float32_below_it() -> None:
    model = built(VARIANTS["nsa"]).to(torch.bfloat16)
    mixer, found = model.model.layers[0].mixer, []
    read_blocks = mixer.read_blocks
    mixer.read_blocks = lambda *given: found.append(read_blocks(*given)) or found[-1]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(tokens())
    assert found[0][1].dtype == torch.float32


def test_either_word_asks_for_it_and_fills_the_other() -> None:
    one, other = (
        es.normalize_to_ir(changed(tiny_spec(), of(**words))).layers[0].mixer.params
        for words in ({"window_mode": "nsa"}, {"compression": {"type": "nsa_learned"}})
    )
    assert one == other
    assert (one["window_mode"], one["window"]) == ("nsa", 512)
    sizes = {word: one["compression"][word] for word in ("m_block", "stride", "select_block", "top_k_blocks", "pool")}
    assert sizes == {"m_block": 32, "stride": 16, "select_block": 64, "top_k_blocks": 16, "pool": "mlp"}


@pytest.mark.parametrize("name", ["nsa_biases", "nsa_mean", "nsa_hybrid"])
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    source = (tmp_path / "model" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert ("class MlpPool" in source) == (name == "nsa_biases")
    assert "LightningIndexer" not in source


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({**NSA, "latent_dim": 16}, "latent_dim"),
        ({**NSA, "qk_norm": "full"}, "qk_norm"),
        ({**NSA, "attention_sinks": {}}, "attention_sinks"),
        ({**NSA, "o_latent_dim": 4}, "o_latent_dim"),
        ({**NSA, "window_mode": "sliding"}, "window_mode"),
        ({**HCA, "window_mode": "nsa"}, "window_mode"),
        (with_words(indexer={}), "compression.indexer"),
        (with_words(pool="softmax"), "compression.pool"),
        (with_words(stride=2), "compression.select_block"),
        (with_words(stride=3), "compression.m_block"),
        (with_words(top_k_blocks=2), "compression.top_k_blocks"),
        ({"compression": {"type": "hca", "stride": 3}}, "compression.stride"),
        ({"compression": {"type": "hca", "shared_kv": False}}, "compression.shared_kv"),
        ({"compression": {"type": "csa", "pool": "mlp"}}, "compression.pool"),
    ],
    ids=str,
)
def test_words_that_contradict_it_are_refused(words: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(changed(tiny_spec(), of(**words)))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.path == f"{ATTENTION}.{path}"
    assert diagnostic.see in ("reference/errors.md#compression", "reference/errors.md#native-sparse-attention")
