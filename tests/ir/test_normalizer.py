"""What the IR of a spec holds: everything, resolved, with the places it came from."""

from typing import Any

import pytest

from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, EulerStackError, Location, NormalizationError
from eulerstack.ir import dims_of, normalize_to_ir
from eulerstack.ir.types import thaw
from tests.ir.strategies import decoder, minimal


def test_every_default_is_filled_in() -> None:
    ir = normalize_to_ir(minimal())
    assert thaw(ir.model) == {
        "name": "small",
        "d_model": 32,
        "vocab_size": 50,
        "max_seq_len": 64,
        "n_heads": 4,
        "n_kv_heads": 4,
        "head_dim": 8,
        "d_ff": 128,
        "norm_eps": 1e-5,
        "residual_multiplier": 1.0,
        "initializer_range": 0.02,
        "dtype": "bfloat16",
        "family_hint": None,
        "target_params": None,
    }
    assert thaw(ir.embedding) == {
        "type": "learned",
        "tie_word_embeddings": True,
        "scale": 1.0,
    }
    assert ir.position.type == "rope"
    assert thaw(ir.position.params) == {
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rope_partial_factor": 1.0,
        "rope_interleaved": False,
    }
    hints, compatibility = ir.training_hints, ir.compatibility
    assert (hints["dropout"], hints["seed"], hints["optimizer"], hints["betas"]) == (0.0, 0, "adamw", (0.9, 0.95))
    assert thaw(hints["scaling"]) == {"parametrization": "standard", "base_width": None}
    assert (compatibility["compile_target"], compatibility["dtype_policy"]) == ("huggingface", "uniform")
    assert ir.tissue == {}
    assert thaw(ir.head.params) == {"tie_weights": True, "logit_softcap": None, "logit_scale": 1.0}
    layer = ir.layers[0]
    assert (layer.norm.type, layer.norm.position, thaw(layer.norm.params)) == (
        "rmsnorm",
        "pre",
        {"eps": 1e-5, "zero_centered": False},
    )
    assert (layer.residual.type, thaw(layer.residual.params)) == ("sequential", {"scaling": 1.0})
    assert (layer.ffn.type, thaw(layer.ffn.params)) == ("gated_mlp", {"activation": "swiglu", "bias": False})


def test_an_absent_block_means_its_defaults() -> None:
    bare = minimal(layer_templates={"decoder": decoder(mixer={"type": "attention"})})
    assert normalize_to_ir(bare) == normalize_to_ir(minimal())


def test_dims_are_those_of_the_model() -> None:
    dims = dims_of(normalize_to_ir(minimal(model={"n_kv_heads": 2, "head_dim": 20, "d_ff": 7})))
    assert (dims.n_kv_heads, dims.head_dim, dims.d_ff, dims.positional) == (2, 20, 7, "rope")


@pytest.mark.parametrize(("ratio", "width"), [(4, 128), (2.7, 86), (8 / 3, 85), (0.02, 1)])
def test_the_ratio_gives_the_nearest_whole_width(ratio: float, width: int) -> None:
    assert normalize_to_ir(minimal(model={"mlp_ratio": ratio})).model["d_ff"] == width


@pytest.mark.parametrize("ratio", [1e-9, 1e308])
def test_a_ratio_without_a_usable_width_is_refused_at_its_place(ratio: float) -> None:
    with pytest.raises(NormalizationError) as caught:
        normalize_to_ir(minimal(model={"mlp_ratio": ratio}))
    assert caught.value.diagnostics[0].path == "model.mlp_ratio"


@pytest.mark.parametrize(
    ("head", "embedding", "tied"),
    [
        ({}, {}, True),
        ({}, {"tie_word_embeddings": False}, False),
        ({"tie_weights": True}, {"tie_word_embeddings": False}, True),
    ],
)
def test_the_heads_word_on_tying_wins_then_the_embeddings_then_true(head: Any, embedding: Any, tied: bool) -> None:
    ir = normalize_to_ir(minimal(head=head, embedding=embedding))
    assert ir.head.params["tie_weights"] is tied
    assert ir.embedding["tie_word_embeddings"] is tied


def test_norms_inherit_the_models_eps_unless_they_have_their_own() -> None:
    templates = {"decoder": decoder(), "own": decoder(norm={"eps": 1e-3})}
    schedule = [{"template": "decoder"}, {"template": "own"}]
    ir = normalize_to_ir(minimal(model={"norm_eps": 1e-6}, layer_templates=templates, layer_schedule=schedule))
    assert [layer.norm.params["eps"] for layer in ir.layers] == [1e-6, 1e-3]


def test_the_final_norm_is_the_last_layers_and_absent_after_post() -> None:
    layered = normalize_to_ir(minimal(layer_templates={"decoder": decoder(norm={"type": "layernorm"})}))
    assert layered.final_norm is not None and layered.final_norm.type == "layernorm"
    assert normalize_to_ir(minimal(layer_templates={"decoder": decoder(norm={"position": "post"})})).final_norm is None


def test_a_schedule_becomes_one_layer_for_each_repeat() -> None:
    templates = {"a": decoder(), "b": decoder(ffn={"type": "mlp"})}
    schedule = [{"template": "a", "repeat": 2}, {"template": "b"}, {"template": "a"}]
    ir = normalize_to_ir(minimal(layer_templates=templates, layer_schedule=schedule))
    assert [layer.template for layer in ir.layers] == ["a", "a", "b", "a"]
    assert ir.layers[0] is ir.layers[3]


def test_an_override_changes_its_own_layers_only() -> None:
    override = {
        "residual": {"scaling": 0.5},
        "attention": {"window": 8, "attn_drop": 0.1},
        "norm": {"position": "post"},
        "ffn": {"activation": "geglu"},
    }
    schedule = [{"template": "decoder", "override": override}, {"template": "decoder"}]
    changed, plain = normalize_to_ir(minimal(layer_schedule=schedule)).layers
    assert plain == normalize_to_ir(minimal()).layers[0]
    assert changed.residual.params["scaling"] == 0.5
    assert (changed.mixer.params["window"], changed.mixer.params["attn_drop"]) == (8, 0.1)
    assert changed.norm.position == "post"
    assert changed.ffn.params["activation"] == "geglu"


def test_scaled_positions_know_the_models_context() -> None:
    ir = normalize_to_ir(minimal(embedding={"rope_scaling": {"type": "dynamic", "factor": 2}}))
    assert ir.position.params["rope_scaling"]["original_max_seq_len"] == 64
    assert ir.layers[0].mixer.params["rope"]["scaling"] == ir.position.params["rope_scaling"]


def test_reserved_keys_are_gathered_under_their_paths() -> None:
    spec = minimal(
        model={"experimental.a": {"k": 1}},
        layer_templates={
            "decoder": decoder(
                mixer={"type": "attention", "attention": {"vendor.acme.b": 2}}, state={"kv_cache": True, "future.c": 3}
            )
        },
        layer_schedule=[{"template": "decoder"}, {"template": "decoder", "repeat": 2, "future.d": 4}],
        **{"vendor.acme.telemetry": {"endpoint": "x"}},
    )
    assert thaw(normalize_to_ir(spec).extensions) == {
        "model.experimental.a": {"k": 1},
        "layer_templates.decoder.mixer.attention.vendor.acme.b": 2,
        "layer_templates.decoder.state.future.c": 3,
        "layers[1..2].future.d": 4,
        "vendor.acme.telemetry": {"endpoint": "x"},
    }


def test_every_node_knows_where_it_was_written() -> None:
    text = """schema_version: 1
model: {name: small, d_model: 32, vocab_size: 50, max_seq_len: 64, n_heads: 4}
tokenizer_contract: {type: hf}
embedding: {type: learned, positional: rope}
layer_templates:
  decoder:
    mixer: {type: attention}
    ffn: {type: gated_mlp}
layer_schedule: [{template: decoder}]
head: {type: causal_lm}
"""
    ir = normalize_to_ir(parse_text(text, "spec.yml"))
    assert ir.layers[0].mixer.location == Location("spec.yml", 7, 5)
    assert ir.layers[0].ffn.location == Location("spec.yml", 8, 5)
    assert ir.head.location == Location("spec.yml", 10, 1)


def test_locations_take_no_part_in_comparison() -> None:
    from eulerstack.ir import print_ir

    ir = normalize_to_ir(minimal())
    assert normalize_to_ir(parse_text(print_ir(ir), "a.yml")) == normalize_to_ir(
        parse_text("\n" + print_ir(ir), "b.yml")
    )


def test_an_invalid_spec_never_becomes_an_ir() -> None:
    with pytest.raises(EulerStackError):
        normalize_to_ir(minimal(model={"d_model": "wide"}))
    with pytest.raises(CompatibilityError):
        normalize_to_ir(minimal(model={"n_kv_heads": 3}))


def test_numbers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(EulerStackError):
        normalize_to_ir(minimal(embedding={"rope_theta": 10**400}))
