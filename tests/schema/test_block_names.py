"""A parameter block may bear another name than its type: `ttt` for `ttt_layer`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from eulerstack.cli.describe import _primitive
from eulerstack.errors import msg
from eulerstack.ir import normalize_to_ir
from eulerstack.ir.printer import print_ir, to_spec
from eulerstack.plugins import CacheLayer, Primitive, Problem, hookimpl
from eulerstack.plugins.manager import get_registry
from eulerstack.schema.assemble import assemble
from tests.schema.words import make_registry, problems_of, source, spec_with

MIXER = "layer_templates__one__mixer"
HERE = "layer_templates.one.mixer"
BLOCKY = Primitive(
    name="block_layer",
    kind="mixer",
    summary="a mixer whose block is called otherwise",
    module="own.modules:Blocky",
    block="blocky",
    schema={
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "Size."}},
        "additionalProperties": False,
    },
    checks=lambda dims, params: [Problem("size", msg("five"), msg("Type size: 4"), "x.md#y")] * (params["size"] == 5),
    cache=lambda params: CacheLayer("eulerstack_state"),
)


@pytest.fixture(scope="module")
def registry() -> Any:
    plugin = SimpleNamespace(__name__="blocky", eulerstack_mixers=hookimpl(lambda: (BLOCKY,)))
    return make_registry(source(plugin, "eulerstack-ttt"))


def found(registry: Any, **mixer: Any) -> list[tuple[str, str, str, str]]:
    spec = spec_with(**{MIXER: {"type": "block_layer", **mixer}})
    return [(each.category, each.path, each.what, each.fix) for each in problems_of(spec, registry)]


def test_the_schema_has_the_block_under_its_own_name(registry: Any) -> None:
    rules = assemble(registry)["properties"]["layer_templates"]["additionalProperties"]["properties"]["mixer"]["allOf"]
    (words,) = [r["then"]["properties"] for r in rules if r["if"]["properties"]["type"]["const"] == "block_layer"]
    assert set(words) == {"type", "blocky"}


def test_a_block_of_that_name_is_accepted_and_may_be_left_out(registry: Any) -> None:
    assert found(registry, blocky={"size": 7}) == []
    assert found(registry) == []


def test_a_block_of_a_type_that_has_none_is_told_where_its_words_belong() -> None:
    spec = spec_with(layer_templates__one__ffn={"type": "moe", "moe": {"experts": 4, "top_k": 2}})
    (problem,) = problems_of(spec, get_registry())
    assert (problem.path, problem.what) == (
        "layer_templates.one.ffn.moe", "moe has no block: its words stand beside type"
    )  # fmt: skip
    assert problem.fix == "Move the words of moe to where moe stands"


def test_faults_and_objections_are_located_in_the_block(registry: Any) -> None:
    assert [each[:2] for each in found(registry, blocky={"size": 10})] == [("ValidationError", f"{HERE}.blocky.size")]
    assert [each[:2] for each in found(registry, blocky={"sise": 1})] == [("ValidationError", f"{HERE}.blocky.sise")]
    assert [each[:2] for each in found(registry, blocky={"size": 5})] == [("CompatibilityError", f"{HERE}.blocky.size")]


def test_a_block_named_after_the_type_is_told_its_name(registry: Any) -> None:
    assert found(registry, block_layer={"size": 7}) == [
        (
            "ValidationError",
            f"{HERE}.block_layer",
            "the block of block_layer is called blocky",
            "Type blocky instead of block_layer",
        )
    ]


def test_the_block_beside_another_type_names_the_type_it_belongs_to(registry: Any) -> None:
    spec = spec_with(**{f"{MIXER}__blocky": {}})
    (problem,) = problems_of(spec, registry)
    assert (problem.path, problem.fix) == (f"{HERE}.blocky", "Delete blocky, or type 'type: block_layer'")


@pytest.mark.parametrize("block", [None, {}, {"size": 7}], ids=str)
def test_defaults_and_values_reach_the_ir_and_come_back_as_text(registry: Any, block: Any) -> None:
    mixer = {"type": "block_layer"} if block is None else {"type": "block_layer", "blocky": block}
    ir = normalize_to_ir(spec_with(**{MIXER: mixer}), registry)
    size = (block or {}).get("size", 3)
    assert dict(ir.layers[0].mixer.params) == {"size": size}
    assert to_spec(ir, registry)["layer_templates"]["one"]["mixer"] == {"type": "block_layer", "blocky": {"size": size}}
    assert "blocky:" in print_ir(ir, registry)
    assert normalize_to_ir(to_spec(ir, registry), registry) == ir


def test_a_description_shows_what_the_block_says(registry: Any) -> None:
    described = _primitive("mixer", "block_layer", {"type": "block_layer", "blocky": {"size": 7}}, registry)
    assert described == {"type": "block_layer", "params": {"size": 7}}


def test_without_the_package_a_spec_is_told_what_to_install() -> None:
    spec = spec_with(**{MIXER: {"type": "ttt_layer", "ttt": {"inner_lr": 1}}})
    (problem,) = problems_of(spec, make_registry())
    assert (problem.category, problem.path) == ("CompatibilityError", f"{HERE}.type")
    assert problem.fix == "pip install --upgrade eulerstack-ttt"
