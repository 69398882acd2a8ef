"""A thousand specs drawn from the assembled schema: text, IR, JSON, built model and exported spec agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.initial import build_on_meta
from eulerstack.dsl.source import parse_text
from eulerstack.exported import export_spec
from eulerstack.ir import print_ir
from tests.reference.drawn import drawn, is_valid

PARTS = 5
THOUSAND = settings(
    max_examples=1000 // PARTS,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.torch
@pytest.mark.parametrize("part", range(PARTS))
def test_a_drawn_spec_is_what_is_printed_built_and_exported(
    part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("exported")

    @THOUSAND
    @given(st.randoms(use_true_random=False))
    def holds(source) -> None:
        source.seed(source.randint(0, 2**60) * PARTS + part)
        spec = drawn(source)
        assert is_valid(spec)
        ir = es.normalize_to_ir(spec)
        text = print_ir(ir)
        again = es.normalize_to_ir(parse_text(text, "printed.yml"))
        assert again == ir and print_ir(again) == text
        (folder / "config.json").write_text(json.dumps(compile_ir(ir)), encoding="utf-8")
        assert es.normalize_to_ir(export_spec(Path(folder))) == ir
        model = build_on_meta(ir)
        model.tie_weights()
        assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(ir)

    holds()
