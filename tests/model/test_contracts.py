"""What a mixer and a position declare reaches the model around them, and nothing else of them is read."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.ir.printer import print_ir
from eulerstack.plugins import CacheLayer, Cost, Features, Primitive, Rotation, hookimpl
from eulerstack.plugins import manager as manager_module
from eulerstack.plugins.manager import installed_sources, reset_registry
from eulerstack.plugins.sources import PluginSource
from tests.model.specs import built, tokens
from tests.model.words import tiny_spec


class Stranger(nn.Module):
    """A mixer of one projection that keeps what it was given."""

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.params = params
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.seen: Any = None

    def forward(self, hidden_states: torch.Tensor, position_embeddings: Any = None, **kwargs: Any) -> torch.Tensor:
        self.seen = position_embeddings
        return self.proj(hidden_states)


class Steps(nn.Module):
    """A bias on scores: `slope` for every token of distance, alike for all heads."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.slope, self.n_heads = params["slope"], config.num_attention_heads

    def attention_bias(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return (self.slope * (keys[None] - queries[:, None]).float())[None].expand(self.n_heads, -1, -1)


def block(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


MIXER = Primitive(
    name="vendor.acme.stranger",
    kind="mixer",
    summary="a projection",
    module="tests.model.test_contracts:Stranger",
    schema=block(
        rope={"type": "boolean", "default": True},
        softcap={"type": "string", "default": "soft"},
        latent_dim={"type": "boolean", "default": True},
        window_mode={"type": "string", "default": "dilated"},
    ),
    cost=lambda dims, params, size: Cost(params=dims.d_model**2, flops_per_token=2 * dims.d_model**2),
    cache=lambda params: CacheLayer("eulerstack_state"),
)
POSITION = Primitive(
    name="vendor.acme.steps",
    kind="position",
    summary="a linear bias",
    module="tests.model.test_contracts:Steps",
    schema=block(slope={"type": "number", "minimum": 0, "default": 0.5}),
    place="scores",
)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Primitive]]:
    """The primitives of a third party's plugin, which a test may exchange before it uses them."""
    provided = [MIXER, POSITION]
    module = types.ModuleType("acme")
    for kind in ("mixer", "position"):
        hook = hookimpl(lambda kind=kind: [each for each in provided if each.kind == kind])
        setattr(module, f"eulerstack_{kind}s", hook)
    sources = [*installed_sources(), PluginSource("acme", "acme", "1.0", lambda: module)]
    monkeypatch.setattr(manager_module, "installed_sources", lambda: sources)
    reset_registry()
    yield provided
    reset_registry()


def stranger_spec(**params: Any) -> dict[str, Any]:
    mixer = {"type": MIXER.name, MIXER.name: params}
    return tiny_spec(layer_templates={"decoder": {"mixer": mixer, "ffn": {"type": "gated_mlp"}}})


def test_words_of_attention_mean_nothing_in_a_strangers_block(plugin: list[Primitive]) -> None:
    model = built(stranger_spec())
    assert model._supports_sdpa and model._supports_flash_attn and model._supports_attention_backend
    assert len(model.model.rotary_embs) == 0
    model(tokens())
    assert all(layer.mixer.seen is None and layer.mixer.params["rope"] is True for layer in model.model.layers)


def test_a_stranger_that_asks_for_rotation_is_given_it_beside_attention(plugin: list[Primitive]) -> None:
    wanted = {"theta": 500.0, "partial_factor": 1.0, "interleaved": False, "scaling": None, "head_dim": 6}
    plugin[0] = replace(MIXER, features=lambda dims, params: Features(rotation=Rotation("rope", wanted)))
    spec = stranger_spec()
    spec["layer_templates"]["plain"] = {"mixer": {"type": "attention"}, "ffn": {"type": "gated_mlp"}}
    spec["layer_schedule"].append({"template": "plain"})
    model = built(spec)
    model(tokens(time=5))
    assert len(model.model.rotary_embs) == 2 and model.model.rope_of_slot == [0, 0, 0, 1]
    cos, sin = model.model.layers[0].mixer.seen
    assert cos.shape == sin.shape == (1, 5, 6)
    angle = torch.arange(5) * 500.0 ** (-2 / 6)
    torch.testing.assert_close(cos[0, :, 1], angle.cos())


@pytest.mark.parametrize(
    ("backend", "flag"),
    [
        ("sdpa", "_supports_sdpa"),
        ("flash", "_supports_flash_attn"),
        ("flex", "_supports_flex_attn"),
        ("serving", "_supports_attention_backend"),
    ],
)
def test_an_implementation_that_a_mixer_refuses_is_refused_by_the_model(
    backend: Any, flag: str, plugin: list[Primitive]
) -> None:
    assert getattr(built(stranger_spec()), flag) is True
    plugin[0] = replace(MIXER, features=lambda dims, params: Features(unsupported=(backend,)))
    reset_registry()
    model = built(stranger_spec())
    flags = ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn", "_supports_attention_backend")
    assert [name for name in flags if not getattr(model, name)] == [flag]


def test_features_that_are_none_name_their_plugin(plugin: list[Primitive]) -> None:
    plugin[0] = replace(MIXER, features=lambda dims, params: "rotation")  # type: ignore[arg-type, return-value]
    with pytest.raises(CompatibilityError, match=r"vendor\.acme\.stranger"):
        compile_ir(es.normalize_to_ir(stranger_spec()))


def test_a_primitives_names_stand_in_the_config(plugin: list[Primitive]) -> None:
    plugin[0] = replace(MIXER, config_fields=lambda params, model: {"acme_softness": params["softcap"]})
    assert compile_ir(es.normalize_to_ir(stranger_spec(softcap="very")))["acme_softness"] == "very"


@pytest.mark.parametrize("fields", [{"hidden_size": 7}, {"architecture": {}}, {"acme": float("nan")}, {"acme": {1, 2}}])
def test_a_primitive_says_only_its_own_in_the_config(fields: dict[str, Any], plugin: list[Primitive]) -> None:
    plugin[0] = replace(MIXER, config_fields=lambda params, model: fields)
    with pytest.raises(CompatibilityError, match=r"vendor\.acme\.stranger"):
        compile_ir(es.normalize_to_ir(stranger_spec()))


def test_a_rotation_that_no_position_makes_is_refused(plugin: list[Primitive]) -> None:
    plugin[0] = replace(MIXER, features=lambda dims, params: Features(rotation=Rotation("vendor.acme.none", {})))
    with pytest.raises(CompatibilityError, match=r"vendor\.acme\.none"):
        compile_ir(es.normalize_to_ir(stranger_spec()))


def positioned(**params: Any) -> dict[str, Any]:
    return tiny_spec(embedding={"type": "learned", "positional": POSITION.name, POSITION.name: params})


def test_a_positions_block_is_checked_completed_printed_and_computed(plugin: list[Primitive]) -> None:
    ir = es.normalize_to_ir(positioned())
    assert ir.position.type == POSITION.name and dict(ir.position.params) == {"slope": 0.5} and not ir.extensions
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir
    flat, steep = built(positioned(slope=0.0)), built(positioned(slope=2.0))
    flat.load_state_dict(steep.state_dict())
    ids = tokens()
    assert (flat(ids).logits - steep(ids).logits).abs().max() > 1e-2
    assert not steep._supports_flash_attn and not steep._supports_flex_attn and steep._supports_sdpa
    assert es.compile_to_hf_model(ir).config.tensor_parallel_plan.keys() == {
        f"layers.*.ffn.{name}" for name in ("gate_proj", "up_proj", "down_proj")
    }
    for wrong, path in (({"slop": 1.0}, "slop"), ({"slope": -1}, "slope")):
        with pytest.raises(ValidationError) as caught:
            es.validate_v2(positioned(**wrong))
        (problem,) = caught.value.diagnostics
        assert problem.path == f"embedding.{POSITION.name}.{path}"


def test_a_positions_bias_counts_in_cached_decoding(plugin: list[Primitive]) -> None:
    model = built(positioned(slope=0.7)).eval()
    ids = tokens(batch=2, time=9)
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :4], use_cache=True)
        rest = model(ids[:, 4:], past_key_values=first.past_key_values)
    assert torch.allclose(torch.cat((first.logits, rest.logits), 1), whole, atol=1e-5)


def test_a_primitive_whose_package_is_missing_names_the_package(plugin: list[Primitive]) -> None:
    plugin[0] = replace(MIXER, requires=("torch", "acme-kernels-of-2031"))
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(stranger_spec())
    (problem,) = caught.value.diagnostics
    assert problem.path == "layer_templates.decoder.mixer.type"
    assert (
        "acme-kernels-of-2031" in problem.what.render() and problem.fix.render() == "pip install acme-kernels-of-2031"
    )
