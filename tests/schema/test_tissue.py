"""`tissue`: columns of templates, checked, exported with their layers, shown by `explain`."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("eulerstack_mixers")

import eulerstack as es  # noqa: E402
from eulerstack.compiler.compile import compile_ir  # noqa: E402
from eulerstack.compiler.tissue import column_edges  # noqa: E402
from eulerstack.errors import CompatibilityError, ValidationError  # noqa: E402
from eulerstack.ir.printer import from_data, print_ir, to_data, to_spec  # noqa: E402
from tests.ir.strategies import decoder, minimal  # noqa: E402

COLUMNS = [
    {"name": "global_integration", "templates": ["far"], "role": "global_binding"},
    {"name": "local", "templates": ["near", "nearest"]},
]


def spec_with(tissue: dict[str, Any]) -> dict[str, Any]:
    """Six layers of three templates, and one template that no layer has."""
    window = {"type": "attention", "attention": {"window": 4}}
    return minimal(
        layer_templates={
            "far": decoder(),
            "near": decoder(mixer=window),
            "nearest": decoder(ffn={"type": "mlp"}),
            "spare": decoder(),
        },
        layer_schedule=[
            {"template": "far", "repeat": 2},
            {"template": "near", "repeat": 2},
            {"template": "far"},
            {"template": "nearest"},
        ],
        tissue=tissue,
    )


def test_the_config_maps_columns_to_layers_and_neighbours() -> None:
    ir = es.normalize_to_ir(spec_with({"columns": COLUMNS, "connectivity": "ring"}))
    assert compile_ir(ir)["tissue"] == {
        "connectivity": "ring",
        "columns": [
            {**COLUMNS[0], "layers": [0, 1, 4]},
            {**COLUMNS[1], "role": None, "layers": [2, 3, 5]},
        ],
        "edges": [[0, 1], [1, 0]],
    }


def test_a_spec_without_columns_has_none() -> None:
    ir = es.normalize_to_ir(minimal())
    assert compile_ir(ir)["tissue"] is None
    assert "tissue" not in to_spec(ir)


@pytest.mark.parametrize(
    ("connectivity", "edges"),
    [
        ("none", []),
        ("feedforward", [[0, 1], [1, 2]]),
        ("ring", [[0, 1], [1, 2], [2, 0]]),
        ("full", [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]),
    ],
)
def test_edges_of_three_columns(connectivity: str, edges: list[list[int]]) -> None:
    assert column_edges(connectivity, 3) == edges
    # A column is no neighbour of itself.
    assert column_edges(connectivity, 1) == []


def test_the_ir_keeps_them_through_text_and_json() -> None:
    ir = es.normalize_to_ir(spec_with({"columns": COLUMNS, "connectivity": "full"}))
    assert from_data(to_data(ir)) == ir
    assert es.normalize_to_ir(to_spec(ir)) == ir
    assert "global_binding" in print_ir(ir)


@pytest.mark.parametrize(
    ("columns", "path", "what"),
    [
        ([{"name": "a", "templates": ["fat"]}], "tissue.columns[0].templates[0]", 'there is no template "fat"'),
        ([{"name": "a", "templates": ["spare"]}], "tissue.columns[0].templates[0]", "no layer is made"),
        (
            [{"name": "a", "templates": ["far"]}, {"name": "b", "templates": ["near", "far"]}],
            "tissue.columns[1].templates[1]",
            'belongs to the column "a" already',
        ),
        ([{"name": "a", "templates": ["far", "far"]}], "tissue.columns[0].templates[1]", 'belongs to the column "a"'),
        (
            [{"name": "a", "templates": ["far"]}, {"name": "a", "templates": ["near"]}],
            "tissue.columns[1].name",
            'two columns called "a"',
        ),
    ],
)
def test_a_column_that_cannot_be_is_refused_where_it_stands(columns: Any, path: str, what: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec_with({"columns": columns}))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.path == path
    assert what in diagnostic.what.render(str)


@pytest.mark.parametrize(
    "tissue", [{"columns": []}, {"columns": [{"name": "a"}]}, {"columns": COLUMNS, "connectivity": "star"}, {}]
)
def test_its_form_is_checked(tissue: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        es.validate_v2(spec_with(tissue))
