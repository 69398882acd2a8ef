"""The naive implementations agree with independent ones: torch's own functions and transformers' formulas."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn import functional  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

from eulerstack_mixers.reference.attention import attention  # noqa: E402
from eulerstack_mixers.reference.ffn import activate  # noqa: E402
from eulerstack_mixers.reference.norms import layernorm, rmsnorm  # noqa: E402
from eulerstack_mixers.reference.positions import alibi_slopes, frequencies, rotate  # noqa: E402

HEAD_DIM = 16
ORIGINAL = {"original_max_position_embeddings": 64}
PLAIN = {"theta": 10000.0, "partial_factor": 1.0, "interleaved": False, "scaling": None}
PARAMS = {"qk_norm": "none", "scale": None, "softcap": None, "window": None, "rope": False}


def ours(scaling: dict[str, Any]) -> dict[str, Any]:
    """A scaling in this language from transformers' words."""
    optional = {"attention_factor": None, "mscale": None, "mscale_all_dim": None, "truncate": True}
    optional |= {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 4.0}
    names = {"rope_type": "type", "original_max_position_embeddings": "original_max_seq_len"}
    return {**optional, "original_max_seq_len": 64, **{names.get(key, key): value for key, value in scaling.items()}}


@pytest.mark.parametrize("partial_factor", [1.0, 0.5])
@pytest.mark.parametrize("length", [10, 200])
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, **ORIGINAL},
        {"rope_type": "yarn", "factor": 4.0, "truncate": False, "beta_fast": 8.0, "beta_slow": 2.0, **ORIGINAL},
        {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.1, **ORIGINAL},
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7, **ORIGINAL},
        {"rope_type": "longrope", "factor": 4.0, **ORIGINAL},
        {"rope_type": "longrope", "factor": 4.0, "attention_factor": 1.3, **ORIGINAL},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL},
    ],
    ids=lambda scaling: "-".join(str(value) for value in scaling.values()),
)
def test_scaled_frequencies_are_transformers_own(scaling: dict[str, Any], length: int, partial_factor: float) -> None:
    if scaling["rope_type"] == "longrope":
        pairs = int(HEAD_DIM * partial_factor) // 2
        scaling = {
            **scaling,
            "short_factor": [1.0 + i / 8 for i in range(pairs)],
            "long_factor": [2.0 + i for i in range(pairs)],
        }
    config = SimpleNamespace(
        rope_parameters={**scaling, "rope_theta": 10000.0, "partial_rotary_factor": partial_factor},
        head_dim=HEAD_DIM,
        hidden_size=4 * HEAD_DIM,
        num_attention_heads=4,
        max_position_embeddings=64,
        standardize_rope_params=lambda: None,
    )
    expected, expected_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, device="cpu", seq_len=length)
    rope = {**PLAIN, "partial_factor": partial_factor, "scaling": ours(scaling)}
    actual, factor = frequencies(HEAD_DIM, rope, length)
    torch.testing.assert_close(torch.tensor(actual, dtype=torch.float32), expected, rtol=2e-5, atol=0)
    assert factor == pytest.approx(expected_factor)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_rotation_keeps_lengths_and_depends_on_distances_alone(interleaved: bool) -> None:
    torch.manual_seed(0)
    rope = {**PLAIN, "interleaved": interleaved, "partial_factor": 0.5}
    query, key = torch.randn(1, HEAD_DIM, dtype=torch.float64), torch.randn(1, HEAD_DIM, dtype=torch.float64)
    near = (rotate(query, [7], rope) * rotate(key, [3], rope)).sum()
    far = (rotate(query, [107], rope) * rotate(key, [103], rope)).sum()
    torch.testing.assert_close(near, far)
    torch.testing.assert_close(rotate(query, [9], rope).norm(), query.norm())
    assert torch.equal(rotate(query, [9], rope)[:, HEAD_DIM // 2 :], query[:, HEAD_DIM // 2 :])


def test_slopes_halve_from_head_to_head_and_fill_up_from_the_finer_row() -> None:
    assert alibi_slopes(8) == [2.0**-head for head in range(1, 9)]
    assert alibi_slopes(6) == [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_agrees_with_torch(n_kv_heads: int, window: int | None) -> None:
    torch.manual_seed(0)
    time, d_model, n_heads = 7, 12, 4
    states = torch.randn(time, d_model, dtype=torch.float64)
    widths = {"q_proj": n_heads * 6, "k_proj": n_kv_heads * 6, "v_proj": n_kv_heads * 6}
    weights = {f"{name}.weight": torch.randn(width, d_model, dtype=torch.float64) for name, width in widths.items()}
    weights["q_proj.bias"] = torch.randn(n_heads * 6, dtype=torch.float64)
    weights["o_proj.weight"] = torch.randn(d_model, n_heads * 6, dtype=torch.float64)
    query = functional.linear(states, weights["q_proj.weight"], weights["q_proj.bias"]).view(time, n_heads, 6)
    key = functional.linear(states, weights["k_proj.weight"]).view(time, n_kv_heads, 6)
    value = functional.linear(states, weights["v_proj.weight"]).view(time, n_kv_heads, 6)
    distance = torch.arange(time)[:, None] - torch.arange(time)[None, :]
    mask = (distance >= 0) & (distance < (time if window is None else window))
    mixed = functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        attn_mask=mask,
        scale=0.3,
        enable_gqa=True,
    )
    expected = functional.linear(mixed[0].transpose(0, 1).reshape(time, -1), weights["o_proj.weight"])
    actual = attention(states, weights, {**PARAMS, "scale": 0.3, "window": window}, n_heads, n_kv_heads)
    torch.testing.assert_close(actual, expected)


def test_norms_agree_with_torch() -> None:
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 8), (8,), (8,)))
    torch.testing.assert_close(rmsnorm(states, weight, 1e-3), functional.rms_norm(states, (8,), weight, 1e-3))
    torch.testing.assert_close(rmsnorm(states, weight - 1, 1e-3, True), functional.rms_norm(states, (8,), weight, 1e-3))
    expected = functional.layer_norm(states, (8,), weight, bias, 1e-3)
    torch.testing.assert_close(layernorm(states, weight, bias, 1e-3), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("swiglu", functional.silu),
        ("silu", functional.silu),
        ("geglu", functional.gelu),
        ("gelu", functional.gelu),
        ("gelu_tanh", lambda states: functional.gelu(states, approximate="tanh")),
        ("relu", functional.relu),
        ("relu2", lambda states: functional.relu(states) ** 2),
    ],
)
def test_activations_agree_with_torch(name: str, function: Any) -> None:
    states = torch.linspace(-4, 4, 33, dtype=torch.float64)
    torch.testing.assert_close(activate(name, states), function(states))
