"""Native sparse attention against fla-core's own naive implementation, forward and backward."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    # It says that there is no GPU, and no flash-attn.
    warnings.simplefilter("ignore")
    naive = pytest.importorskip("fla.ops.nsa.naive", reason="fla-core is not installed: make oracles")

import eulerstack as es  # noqa: E402

HEADS, SHARED, WIDTH, D_MODEL = 8, 2, 12, 32


def mixer_of(block: int, number: int, window: int, seed: int = 0) -> Any:
    """A layer with what the oracle knows: one set of keys, and blocks apart, pooled by their mean."""
    compression = {
        "type": "nsa_learned", "pool": "mean", "shared_kv": True, "top_k_blocks": number,
        "m_block": block, "stride": block, "select_block": block,
    }  # fmt: skip
    mixer = {"type": "attention", "attention": {"window": window, "compression": compression}}
    sizes = {
        "name": "one", "d_model": D_MODEL, "n_heads": HEADS, "n_kv_heads": SHARED, "head_dim": WIDTH, "vocab_size": 16,
        "max_seq_len": 64, "dtype": "float32",
    }  # fmt: skip
    spec = {
        "schema_version": 1,
        "model": sizes,
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "none"},
        "layer_templates": {"decoder": {"mixer": mixer, "ffn": {"type": "gated_mlp"}}},
        "layer_schedule": [{"template": "decoder"}],
        "head": {"type": "causal_lm"},
    }
    layer = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=seed).model.layers[0].mixer
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return layer


def theirs(mixer: Any, states: Any, block: int, number: int, window: int) -> Any:
    """The layer's function with its three readings by the oracle; the window's by torch's own attention."""
    heads = {"query": HEADS, "key": SHARED, "value": SHARED}
    query, key, value = (
        getattr(mixer, f"{name[0]}_proj")(states).unflatten(-1, (count, WIDTH)) for name, count in heads.items()
    )
    whole = states.shape[1] // block * block
    pooled = [each[:, :whole].unflatten(1, (-1, block)).mean(2) for each in (key, value)]
    scale = WIDTH**-0.5
    compressed, _ = naive.naive_nsa_compression(query, *pooled, block, scale)
    # The oracle pools what there is of the last block too, so that it can be selected.
    missing = -states.shape[1] % block
    last = torch.nn.functional.pad(key, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, block)).mean(2)
    chosen = naive.naive_nsa_topk(query, last, number, block, scale)
    selected = naive.naive_nsa_selection(query, key, value, chosen, block, scale)
    distance = torch.arange(states.shape[1])[:, None] - torch.arange(states.shape[1])
    near = torch.nn.functional.scaled_dot_product_attention(
        *(each.transpose(1, 2) for each in (query, key, value)),
        attn_mask=(distance >= 0) & (distance < window),
        enable_gqa=True,
    ).transpose(1, 2)
    gates = mixer.g_proj(states).unflatten(-1, (HEADS, 3)).sigmoid()
    mixed = gates[..., :1] * compressed + gates[..., 1:2] * selected + gates[..., 2:] * near
    return mixer.o_proj(mixed.flatten(2))


@pytest.mark.parametrize(("block", "number", "window"), [(4, 3, 5), (4, 5, 2), (2, 6, 9), (8, 16, 4)])
@pytest.mark.parametrize("time", [7, 32, 49])
def test_a_layer_gives_the_oracles_numbers_and_gradients(block: int, number: int, window: int, time: int) -> None:
    mixer = mixer_of(block, number, window, seed=time)
    states = torch.randn(2, time, D_MODEL, generator=torch.Generator().manual_seed(time), requires_grad=True)
    output, expected = mixer(states), theirs(mixer, states, block, number, window)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    inputs = [states, *mixer.parameters()]
    goal = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    ours, oracle = (torch.autograd.grad((each * goal).sum(), inputs) for each in (output, expected))
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
