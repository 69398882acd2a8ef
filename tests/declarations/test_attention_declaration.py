"""Attention's rules: inherited positions, contradictions, cache slot, splitting."""

import math
from typing import Any

import pytest

from eulerstack.plugins import CacheLayer, Dims
from eulerstack.schema.defaults import complete
from eulerstack_mixers.declarations.attention import ATTENTION

ROPE = {
    "positional": "rope",
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_partial_factor": 1.0,
    "rope_interleaved": False,
}
YARN = {"type": "yarn", "factor": 4.0}
DIMS = Dims(
    d_model=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    d_ff=128,
    vocab_size=100,
    max_seq_len=256,
    norm_eps=1e-5,
    positional="rope",
)


def resolved(embedding: dict[str, Any] = ROPE, **words: Any) -> dict[str, Any]:
    params = complete(ATTENTION.schema or {}, words)
    model = {"max_seq_len": 256, "head_dim": 16, "norm_eps": 1e-5}
    return dict(ATTENTION.resolve(params, {"model": model, "embedding": embedding}))


def problems(dims: Dims = DIMS, **words: Any) -> list[str]:
    return [problem.path for problem in ATTENTION.checks(dims, resolved(**words))]


def test_null_inherits_the_embeddings_rotation() -> None:
    assert resolved()["rope"] == {"theta": 10000.0, "partial_factor": 1.0, "interleaved": False, "scaling": None}


def test_a_mapping_replaces_only_the_words_it_gives() -> None:
    embedding = {**ROPE, "rope_interleaved": True, "rope_scaling": {**YARN, "original_max_seq_len": 64}}
    rope = resolved(embedding, rope={"theta": 500})["rope"]
    assert rope["theta"] == 500.0 and isinstance(rope["theta"], float)
    assert rope["interleaved"] is True and rope["scaling"]["factor"] == 4.0


def test_a_null_scaling_takes_the_embeddings_scaling_away() -> None:
    embedding = {**ROPE, "rope_scaling": {**YARN, "original_max_seq_len": 64}}
    assert resolved(embedding, rope={"scaling": None})["rope"]["scaling"] is None


@pytest.mark.parametrize("positional", ["none", "alibi", "learned"])
def test_without_rotary_positions_nothing_rotates(positional: str) -> None:
    assert resolved({"positional": positional})["rope"] is False


def test_resolving_twice_changes_nothing() -> None:
    once = resolved(rope={"scaling": {"type": "yarn", "factor": 2}})
    assert resolved(**once) == once


def test_sliding_needs_a_window() -> None:
    assert problems(window_mode="sliding") == ["window_mode"]
    assert problems(window_mode="sliding", window=8) == []


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ({"window_mode": "dilated", "window": 8, "window_dilation": 2}, []),
        ({"window_mode": "dilated", "window": 8, "window_dilation": 7}, []),
        ({"window_mode": "dilated", "window": 8, "window_dilation": 8}, ["window_dilation"]),
        ({"window_mode": "dilated", "window": 8}, ["window_mode"]),
        ({"window_mode": "dilated", "window_dilation": 2}, ["window_mode"]),
        ({"window_mode": "dilated"}, ["window_mode", "window_mode"]),
        ({"window_mode": "sliding", "window": 8, "window_dilation": 2}, ["window_dilation"]),
        ({"window_dilation": 2}, ["window_dilation"]),
    ],
    ids=str,
)
def test_a_dilated_window_needs_a_window_and_a_smaller_dilation(words: dict[str, Any], paths: list[str]) -> None:
    assert problems(**words) == paths


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ({"latent_dim": 63}, []),
        ({"latent_dim": 64}, ["latent_dim"]),
        ({"latent_dim": 65}, ["latent_dim"]),
        ({"q_latent_dim": 8, "v_head_dim": 4}, ["q_latent_dim", "v_head_dim"]),
        ({"rope_head_dim": 8, "latent_norm_eps": 1e-6}, ["rope_head_dim", "latent_norm_eps"]),
        ({"latent_dim": 8, "qk_norm": "head"}, ["qk_norm"]),
        ({"latent_dim": 8, "rope_head_dim": 5}, ["rope_head_dim"]),
        ({"latent_dim": 8, "rope_head_dim": 5, "rope": False}, []),
        ({"latent_dim": 8, "rope_head_dim": 6, "rope": {"partial_factor": 0.5}}, ["rope_head_dim"]),
        ({"latent_dim": 8, "q_latent_dim": 100, "rope_head_dim": 32, "v_head_dim": 1, "window": 4}, []),
    ],
    ids=str,
)
def test_the_words_of_latent_attention_agree_with_each_other(words: dict[str, Any], paths: list[str]) -> None:
    assert problems(**words) == paths


def test_latent_attention_fills_its_widths_once() -> None:
    once = resolved(latent_dim=8)
    assert (once["rope_head_dim"], once["v_head_dim"], once["latent_norm_eps"]) == (8, 16, 1e-5)
    assert once["scale"] == 24**-0.5
    assert resolved(**once) == once
    given = {"latent_dim": 8, "rope_head_dim": 4, "v_head_dim": 5, "latent_norm_eps": 0.1, "scale": 0.3}
    assert {word: resolved(**given)[word] for word in given} == given


def test_yarns_factor_stands_in_the_scale_of_latent_attention() -> None:
    yarn = {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}
    temperature = 1 + 0.05 * math.log(4)
    assert resolved(latent_dim=8, rope={"scaling": yarn})["scale"] == pytest.approx(24**-0.5 * temperature**2)
    assert resolved(latent_dim=8, rope={"scaling": YARN})["scale"] == 24**-0.5
    assert resolved(rope={"scaling": yarn})["scale"] is None


def test_the_class_depends_on_the_latent() -> None:
    assert ATTENTION.variant(resolved()) == "Attention"
    assert ATTENTION.variant(resolved(latent_dim=8)) == "LatentAttention"


def test_rotary_words_need_rotary_positions() -> None:
    params = {**resolved(), "rope": {"theta": 5.0}}
    dims = Dims(**{**vars(DIMS), "positional": "alibi"})
    assert [problem.path for problem in ATTENTION.checks(dims, params)] == ["rope"]


@pytest.mark.parametrize(
    ("rope", "path"),
    [
        ({"partial_factor": 0.1}, "rope.partial_factor"),
        ({"partial_factor": 0.2}, "rope.partial_factor"),
        ({"partial_factor": 0.125, "scaling": {"type": "dynamic", "factor": 2}}, "rope.scaling"),
        ({"theta": 1, "scaling": YARN}, "rope.scaling"),
        ({"scaling": {**YARN, "beta_fast": 1}}, "rope.scaling.beta_fast"),
        ({"scaling": {**YARN, "mscale": 1}}, "rope.scaling.mscale"),
        (
            {"scaling": {**YARN, "mscale": 1, "mscale_all_dim": 1, "attention_factor": 1}},
            "rope.scaling.attention_factor",
        ),
        (
            {"scaling": {"type": "llama3", "factor": 8, "original_max_seq_len": 64, "high_freq_factor": 1}},
            "rope.scaling.high_freq_factor",
        ),
        (
            {"scaling": {"type": "longrope", "original_max_seq_len": 64, "short_factor": [1] * 8, "long_factor": [1]}},
            "rope.scaling.long_factor",
        ),
        (
            {
                "scaling": {
                    "type": "longrope",
                    "original_max_seq_len": 64,
                    "short_factor": [1] * 8,
                    "long_factor": [1] * 8,
                    "factor": 2,
                    "attention_factor": 1.1,
                }
            },
            "rope.scaling.factor",
        ),
    ],
)
def test_rotary_words_that_contradict_each_other_are_problems(rope: dict[str, Any], path: str) -> None:
    assert problems(rope=rope) == [path]


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "linear", "factor": 2},
        {"type": "dynamic", "factor": 2},
        YARN,
        {**YARN, "mscale": 0.7, "mscale_all_dim": 0.8},
        {"type": "longrope", "original_max_seq_len": 64, "short_factor": [1] * 8, "long_factor": [2] * 8},
        {"type": "llama3", "factor": 8, "original_max_seq_len": 64},
    ],
    ids=lambda scaling: "-".join(scaling),
)
def test_every_scaling_is_accepted_and_left_without_open_lengths(scaling: dict[str, Any]) -> None:
    assert problems(rope={"scaling": scaling}) == []
    complete_scaling = resolved(rope={"scaling": scaling})["rope"]["scaling"]
    assert complete_scaling.get("original_max_seq_len", 1) is not None


def test_a_longrope_factor_follows_from_the_context() -> None:
    scaling = {"type": "longrope", "original_max_seq_len": 64, "short_factor": [1] * 8, "long_factor": [2] * 8}
    assert resolved(rope={"scaling": scaling})["rope"]["scaling"]["factor"] == 4.0


def test_a_window_gets_a_sliding_cache_slot() -> None:
    assert ATTENTION.cache is not None
    assert ATTENTION.cache(resolved()) == CacheLayer("full_attention")
    assert ATTENTION.cache(resolved(window=8)) == CacheLayer("sliding_attention", 8)
    dilated = resolved(window=8, window_mode="dilated", window_dilation=3)
    assert ATTENTION.cache(dilated) == CacheLayer("eulerstack_dilated_7_3")


def test_a_norm_over_the_full_width_keeps_projections_whole() -> None:
    assert ATTENTION.tensor_parallel is not None
    assert ATTENTION.tensor_parallel(resolved(qk_norm="full")) == {}
    assert ATTENTION.tensor_parallel(resolved(qk_norm="head"))["o_proj"] == "rowwise"


@pytest.mark.parametrize("words", [{"latent_dim": 8}, {"attention_sinks": {}}], ids=str)
def test_what_all_heads_share_keeps_projections_whole(words: dict[str, Any]) -> None:
    assert ATTENTION.tensor_parallel is not None
    assert ATTENTION.tensor_parallel(resolved(**words)) == {}
