"""Parameter counts of published models, to the last one, and of every word that changes them."""

import time
from typing import Any

import pytest

from eulerstack.compiler.cost import count_parameters, model_cost
from eulerstack.ir import normalize_to_ir
from tests.ir.strategies import decoder, minimal


def published(model: dict[str, Any], layers: int, template: dict[str, Any], tied: bool, **embedding: Any) -> int:
    spec = minimal(
        model=model,
        embedding=embedding,
        layer_templates={"decoder": template},
        layer_schedule=[{"template": "decoder", "repeat": layers}],
        head={"tie_weights": tied},
    )
    return count_parameters(normalize_to_ir(spec))


def llama(d_model: int, n_heads: int, n_kv_heads: int, d_ff: int, vocab_size: int) -> dict[str, int]:
    return {
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": d_ff,
        "vocab_size": vocab_size,
        "max_seq_len": 4096,
    }


@pytest.mark.parametrize(
    ("model", "layers", "tied", "attention", "count"),
    [
        pytest.param(llama(4096, 32, 32, 11008, 32000), 32, False, {}, 6_738_415_616, id="llama-2-7b"),
        pytest.param(llama(4096, 32, 8, 14336, 128256), 32, False, {}, 8_030_261_248, id="llama-3.1-8b"),
        pytest.param(llama(4096, 32, 8, 14336, 32000), 32, False, {"window": 4096}, 7_241_732_096, id="mistral-7b"),
        pytest.param(llama(896, 14, 2, 4864, 151936), 24, True, {"qkv_bias": True}, 494_032_768, id="qwen2-0.5b"),
        pytest.param(
            {**llama(1024, 16, 8, 3072, 151936), "head_dim": 128},
            28,
            True,
            {"qk_norm": "head"},
            596_049_920,
            id="qwen3-0.6b",
        ),
    ],
)
def test_published_rotary_models_have_their_published_size(
    model: dict[str, int], layers: int, tied: bool, attention: dict[str, Any], count: int
) -> None:
    template = decoder(mixer={"type": "attention", "attention": attention})
    assert published(model, layers, template, tied) == count


def test_gpt2_has_its_published_size() -> None:
    model = {"d_model": 768, "n_heads": 12, "vocab_size": 50257, "max_seq_len": 1024}
    template = {
        "mixer": {"type": "attention", "attention": {"qkv_bias": True, "o_bias": True}},
        "ffn": {"type": "mlp", "activation": "gelu_tanh", "bias": True},
        "norm": {"type": "layernorm"},
    }
    assert published(model, 12, template, True, positional="learned") == 124_439_808


def test_gemma2_2b_has_its_published_size() -> None:
    model = {**llama(2304, 8, 4, 9216, 256000), "head_dim": 256}
    template = decoder(norm={"position": "sandwich", "zero_centered": True})
    assert published(model, 26, template, True) == 2_614_341_888


def count(**sections: Any) -> int:
    return count_parameters(normalize_to_ir(minimal(**sections)))


def counted(template: dict[str, Any]) -> int:
    """Parameters of one layer with this template, less those of one with plain defaults."""
    one = [{"template": "decoder"}]
    return count(layer_templates={"decoder": template}, layer_schedule=one) - count(layer_schedule=one)


def attention(**words: Any) -> dict[str, Any]:
    return decoder(mixer={"type": "attention", "attention": words})


@pytest.mark.parametrize(
    ("template", "difference"),
    [
        (attention(qkv_bias=True), 3 * 32),
        (attention(o_bias=True), 32),
        (attention(qk_norm="head"), 2 * 8),
        (attention(qk_norm="full"), 2 * 32),
        (attention(window=4), 0),
        (decoder(ffn={"type": "gated_mlp", "bias": True}), 2 * 128 + 32),
        (decoder(ffn={"type": "mlp"}), -32 * 128),
        (decoder(ffn={"type": "mlp", "bias": True}), -32 * 128 + 128 + 32),
        (decoder(norm={"type": "layernorm", "bias": False}), 0),
        (decoder(norm={"type": "layernorm"}), 3 * 32),
        (decoder(norm={"position": "sandwich"}), 2 * 32),
        (decoder(norm={"position": "post"}), -32),
        (decoder(residual={"type": "parallel"}), -32),
        (decoder(residual={"type": "parallel"}, norm={"position": "sandwich"}), 32),
    ],
)
def test_every_word_adds_exactly_its_own_parameters(template: dict[str, Any], difference: int) -> None:
    assert counted(template) == difference


def test_a_tied_head_counts_once_and_an_untied_one_twice() -> None:
    assert count(head={"tie_weights": False}) - count(head={"tie_weights": True}) == 50 * 32


def test_a_table_of_positions_counts() -> None:
    assert count(embedding={"positional": "learned"}) - count() == 64 * 32


def test_in_a_dense_model_every_parameter_is_active() -> None:
    cost = model_cost(normalize_to_ir(minimal()))
    assert cost.active == cost.total
    assert sum(layer.params for layer in cost.layers) + cost.embedding + cost.final_norm == cost.total


def test_equal_layers_are_priced_once() -> None:
    ir = normalize_to_ir(minimal(layer_schedule=[{"template": "decoder", "repeat": 100_000}]))
    start = time.perf_counter()
    cost = model_cost(ir)
    assert cost.layers[0] is cost.layers[-1]
    assert cost.total == 100_000 * cost.layers[0].params + cost.embedding + cost.final_norm
    assert time.perf_counter() - start < 1.0
