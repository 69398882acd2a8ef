"""`training_hints.init`: each scheme gives the weights that its name promises, from the same random streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import eulerstack as es
from eulerstack.compiler import initial
from tests.model.specs import changed, tiny_spec
from tests.model.variants import VARIANTS

SIZES = {"model.d_model": 96, "model.n_heads": 4, "model.n_kv_heads": 2, "model.d_ff": 160, "model.head_dim": None}
OUT, DOWN = "model.layers.1.mixer.o_proj.weight", "model.layers.1.ffn.down_proj.weight"
UP, TABLE = "model.layers.1.ffn.up_proj.weight", "model.embed_tokens.weight"
SCHEMES = (
    "normal",
    "truncated_normal",
    "scaled_normal",
    "lecun_normal",
    "xavier_normal",
    "xavier_uniform",
    "orthogonal",
)


def weights(scheme: str, **changes: Any) -> dict[str, torch.Tensor]:
    spec = changed(tiny_spec(), {**SIZES, "training_hints.init": scheme, **changes})
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=3)
    return {name: parameter.detach().float() for name, parameter in model.named_parameters()}


def test_every_scheme_gives_other_weights_and_the_same_ones_again() -> None:
    drawn = {scheme: weights(scheme) for scheme in SCHEMES}
    for one in SCHEMES:
        assert all(torch.equal(each, drawn[one][name]) for name, each in weights(one).items())
        for other in SCHEMES:
            assert one == other or not torch.equal(drawn[one][DOWN], drawn[other][DOWN])


def test_no_two_matrices_begin_alike() -> None:
    drawn = [(name, each) for name, each in weights("normal").items() if each.ndim == 2]
    alike = [
        (one, other)
        for index, (one, first) in enumerate(drawn)
        for other, second in drawn[index + 1 :]
        # Streams that began alike would give the same first numbers whatever the shapes.
        if torch.equal(first.flatten()[:16], second.flatten()[:16])
    ]
    assert len(drawn) > 10 and alike == []


def test_normal_is_what_the_spec_had_without_the_word() -> None:
    spec = changed(tiny_spec(), SIZES)
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=3)
    assert all(torch.equal(parameter, weights("normal")[name]) for name, parameter in model.named_parameters())


def test_a_truncated_normal_ends_at_three_deviations() -> None:
    drawn = weights("truncated_normal", **{"model.initializer_range": 0.05})
    for name in (UP, TABLE):
        assert drawn[name].std() == pytest.approx(0.05, rel=0.05)
        assert drawn[name].abs().max() <= 0.15
    assert weights("normal", **{"model.initializer_range": 0.05})[UP].abs().max() > 0.15


def test_scaled_normal_divides_what_writes_to_the_residual_stream_by_the_depth() -> None:
    plain, scaled = weights("normal"), weights("scaled_normal")
    for name in plain:
        factor = 6**-0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        torch.testing.assert_close(scaled[name], plain[name] * factor)


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("lecun_normal", lambda rows, columns: columns**-0.5),
        ("xavier_normal", lambda rows, columns: (2 / (rows + columns)) ** 0.5),
        ("xavier_uniform", lambda rows, columns: (2 / (rows + columns)) ** 0.5),
    ],
)
def test_a_deviation_follows_from_the_matrix(scheme: str, deviation: Any) -> None:
    drawn = weights(scheme)
    for name in (UP, DOWN, OUT):
        assert drawn[name].std() == pytest.approx(deviation(*drawn[name].shape), rel=0.05)
    if scheme == "xavier_uniform":
        assert drawn[UP].abs().max() <= (6 / sum(drawn[UP].shape)) ** 0.5
    # Embeddings have no inputs to add up.
    assert torch.equal(drawn[TABLE], weights("normal")[TABLE])


def test_orthogonal_matrices_have_singular_values_of_one() -> None:
    drawn = weights("orthogonal")
    for name in (UP, DOWN, OUT):
        values = torch.linalg.svdvals(drawn[name])
        torch.testing.assert_close(values, torch.ones_like(values))


def test_changing_one_layer_leaves_the_others_as_they_were() -> None:
    shorter = weights("orthogonal", **{"layer_schedule.0.repeat": 2})
    assert all(torch.equal(each, weights("orthogonal")[name]) for name, each in shorter.items())


def test_a_directory_holds_the_same_weights_and_loads_them(tmp_path: Any) -> None:
    spec = changed(tiny_spec(), {**SIZES, "training_hints.init": "scaled_normal"})
    ir = es.normalize_to_ir(spec)
    es.compile_to_directory(ir, tmp_path / "out", seed=3)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert all(torch.equal(p, weights("scaled_normal")[name]) for name, p in loaded.named_parameters())
    # The exported code begins a new model by the same scheme.
    fresh = AutoModelForCausalLM.from_config(loaded.config, trust_remote_code=True)
    assert float(fresh.state_dict()[DOWN].std()) == pytest.approx(0.02 * 6**-0.5, rel=0.05)
    assert float(fresh.state_dict()[UP].std()) == pytest.approx(0.02, rel=0.05)


class OwnMatrix(nn.Module):
    """A third party's module that fills a matrix of its own."""

    parameter_roles = {"weight": "hidden"}

    def __init__(self, declared: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(64, 64))
        if not declared:
            self.parameter_roles: dict[str, str] = {}

    def initialize(self, initializer_range: float) -> None:
        self.given = initializer_range


def test_a_module_that_fills_itself_is_told_the_deviation_of_a_matrix_of_this_width() -> None:
    from eulerstack.hf.initial_weights import own_deviation
    from eulerstack.hf.roles import note_parameter_roles

    scaling = {"training_hints.scaling": {"parametrization": "mup", "base_width": 24}}
    model = es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), {**SIZES, **scaling})))
    for declared, expected in ((True, 0.01), (False, 0.02)):
        module = nn.Sequential(OwnMatrix(declared))
        note_parameter_roles(module)
        assert own_deviation(module[0], model.config) == pytest.approx(expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_weight_is_what_its_memory_held_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = initial._materialise

    def filled(module: torch.nn.Module, *words: Any) -> None:
        given(module, *words)
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_floating_point():
                tensor.data.fill_(float("nan"))

    monkeypatch.setattr(initial, "_materialise", filled)
    model = es.compile_to_hf_model(es.normalize_to_ir(VARIANTS[name]))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
