"""Initial numbers depend on the seed and on the parameter's name, and on nothing that was drawn before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import eulerstack as es
from eulerstack.compiler import initial, streams
from eulerstack.compiler.streams import RandomStreams
from eulerstack_mixers.modules.moe import Experts
from tests.model.specs import changed, tiny_spec

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(module: nn.Module, seed: int = 5, name: str = "model.part") -> dict[str, torch.Tensor]:
    """What the module's `initialize` fills its parameters with."""
    words = (seed, name, module._parameters, streams.new_scratch())
    with torch.random.fork_rng(devices=[]), torch.no_grad(), RandomStreams(*words):
        module.initialize(1.0)
    return {key: parameter.detach().clone() for key, parameter in module._parameters.items()}


class Part(nn.Module):
    """Draws in every way that an `initialize` may: into parameters, into rows of them, and beside them."""

    def __init__(self, rows: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.first = nn.Parameter(torch.empty(rows, 6, dtype=dtype))
        self.second = nn.Parameter(torch.empty(40, dtype=dtype))
        self.third = nn.Parameter(torch.empty(40, dtype=dtype))
        self.fourth = nn.Parameter(torch.empty(3, 20, dtype=dtype))

    def initialize(self, deviation: float) -> None:
        nn.init.normal_(self.first, std=deviation)
        nn.init.uniform_(self.second, -1.0, 1.0)
        torch.randn(self.first.shape[0])
        with torch.no_grad():
            self.third.copy_(torch.rand(40).log())
        for row in self.fourth:
            nn.init.normal_(row)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_parameter_does_not_depend_on_the_shapes_drawn_before(dtype: torch.dtype) -> None:
    small, large = drawn(Part(3, dtype)), drawn(Part(70, dtype))
    assert all(torch.equal(small[key], large[key]) for key in ("second", "third", "fourth"))


def test_names_seeds_and_repeated_draws_give_other_numbers() -> None:
    part = drawn(Part(4))
    others = (drawn(Part(4), seed=6), drawn(Part(4), name="model.other"))
    assert all(not torch.equal(part[key], other[key]) for other in others for key in part)
    rows = list(part["fourth"])
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("dtype", [*DTYPES, torch.long], ids=str)
def test_draws_by_out_begin_a_parameters_stream(dtype: torch.dtype) -> None:
    class Given(nn.Module):
        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.line = nn.Parameter(torch.empty(20, dtype=dtype), requires_grad=False)

        def initialize(self, deviation: float) -> None:
            if self.line.is_floating_point():
                torch.rand(20, out=self.line)
            else:
                torch.randperm(20, out=self.line)

    first, other = (drawn(Given(dtype), seed)["line"] for seed in (5, 6))
    assert torch.equal(first, drawn(Given(dtype))["line"]) and not torch.equal(first, other)
    if dtype.is_floating_point:
        assert torch.equal(first, drawn(Given(torch.float32))["line"].to(dtype))


@pytest.mark.parametrize(("dtype", "scheme"), [("float32", "truncated_normal"), ("bfloat16", "normal")])
def test_the_callers_defaults_change_no_number(dtype: str, scheme: str) -> None:
    def weights() -> dict[str, torch.Tensor]:
        spec = changed(tiny_spec(), {"model.dtype": dtype, "training_hints.init": scheme})
        return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=2).state_dict()

    expected = weights()
    for default in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(default)
        try:
            with torch.device("meta"):
                found = weights()
            assert torch.get_default_dtype() is default
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(torch.equal(found[name], each) for name, each in expected.items())


def test_what_an_initialisation_puts_in_a_parameters_place_is_left_as_it_was() -> None:
    table = torch.randn(6, 4)

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.empty(6, 4))
            self.columns = nn.Parameter(torch.empty(4, 6))

        def initialize(self, deviation: float) -> None:
            self.rows.data, self.columns.data = table, table.t()

    model = es.compile_to_hf_model(es.normalize_to_ir(tiny_spec()))
    with torch.device("meta"):
        module, before = Table(), table.clone()
    initial.initialise_module(model, "table", module, 1, "bfloat16", streams.new_scratch(), initial.Memory())
    assert torch.equal(table, before)
    assert torch.equal(module.rows, table.bfloat16()) and torch.equal(module.columns, table.t().bfloat16())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 47, 64, 70, 100])
def test_pieces_hold_the_numbers_of_the_whole(size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    class Line(nn.Module):
        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.one = nn.Parameter(torch.empty(size, dtype=dtype))
            self.two = nn.Parameter(torch.empty(size, dtype=dtype))

        def initialize(self, deviation: float) -> None:
            nn.init.normal_(self.one, std=0.02)
            nn.init.uniform_(self.two)

    whole = drawn(Line(torch.float32))
    monkeypatch.setattr(streams, "PIECE", 32)
    in_pieces = drawn(Line(dtype))
    assert all(torch.equal(in_pieces[key], whole[key].to(dtype)) for key in whole)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 47, 48, 64, 1000])
def test_rounding_in_place_rounds_every_number_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PIECE", 32)
    values = torch.randn(size, generator=torch.Generator().manual_seed(size))
    expected = values.to(torch.bfloat16)
    narrowed = initial._narrowed(values, torch.bfloat16, streams.new_scratch())
    assert torch.equal(narrowed, expected) and narrowed.data_ptr() == values.data_ptr()


@pytest.mark.parametrize("scheme", ["normal", "scaled_normal", "orthogonal"])
def test_rounded_weights_are_those_of_float32_rounded(scheme: str) -> None:
    def weights(dtype: str) -> dict[str, torch.Tensor]:
        spec = changed(tiny_spec(), {"model.dtype": dtype, "training_hints.init": scheme})
        return dict(es.compile_to_hf_model(es.normalize_to_ir(spec), seed=2).named_parameters())

    full = weights("float32")
    for name, rounded in weights("bfloat16").items():
        assert torch.equal(rounded, full[name].to(torch.bfloat16)), name


def test_experts_are_rounded_while_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.dtype] = []
    given = initial._materialise

    def noting(module: nn.Module, *words: Any) -> None:
        given(module, *words)
        if isinstance(module, Experts):
            made.extend(parameter.dtype for parameter in module.parameters())

    monkeypatch.setattr(initial, "_materialise", noting)
    experts = {"layer_templates.decoder.ffn": {"type": "moe", "experts": 3, "top_k": 2}}
    full, rounded = (
        es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), {**experts, "model.dtype": dtype})), seed=2)
        for dtype in ("float32", "bfloat16")
    )
    assert set(made[: len(made) // 2]) == {torch.float32} and set(made[len(made) // 2 :]) == {torch.bfloat16}
    wanted = dict(full.named_parameters())
    assert all(torch.equal(each, wanted[name].to(torch.bfloat16)) for name, each in rounded.named_parameters())


@pytest.mark.parametrize("scheme", ["normal", "lecun_normal"])
def test_all_modules_are_rounded_in_the_same_scratch(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[torch.Tensor] = []
    new_scratch = streams.new_scratch
    monkeypatch.setattr(streams, "new_scratch", lambda: made.append(new_scratch()) or made[-1])
    ir = es.normalize_to_ir(changed(tiny_spec(), {"model.dtype": "bfloat16", "training_hints.init": scheme}))
    es.compile_to_directory(ir, tmp_path / "model")
    es.compile_to_hf_model(ir)
    assert len(made) == 2
