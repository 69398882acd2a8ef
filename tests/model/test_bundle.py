"""The one file of an export holds what its spec names, and the sources that it is joined from keep the rules."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import eulerstack as es
from eulerstack.compiler.bundle import bundle
from eulerstack.compiler.source_files import TABLE, parse_module
from eulerstack.compiler.writer import write_source
from eulerstack.errors import CompileError
from tests.model.mixers.attention import DILATED
from tests.model.mixers.retnet import spec as retnet_spec
from tests.model.variants import ATTENTION, VARIANTS
from tests.model.words import changed, tiny_spec

OWN = frozenset({"eulerstack", "eulerstack_mixers"})
# What a spec must say for a piece of code to be in its export: a variant that says it, and the code's name.
PIECES: dict[str, tuple[dict[str, Any], str]] = {
    "states": (retnet_spec(), "class StateLayer("),
    "linear": (VARIANTS["linear"], "def linear_frequencies("),
    "yarn": (VARIANTS["yarn"], "def yarn_frequencies("),
    "yarn's attention factor": (VARIANTS["yarn"], "def yarn_attention_factor("),
    "llama3": (VARIANTS["llama3"], "def llama3_frequencies("),
    "dynamic": (VARIANTS["dynamic"], "def dynamic_frequencies("),
    "longrope": (VARIANTS["longrope"], "def longrope_frequencies("),
    "longrope's attention factor": (VARIANTS["longrope"], "def longrope_attention_factor("),
    "relu2": (VARIANTS["mlp"], "def relu2("),
    "gelu": (changed(tiny_spec(), {"layer_templates.decoder.ffn.activation": "geglu"}), '"geglu": nn.functional.gelu'),
    "sinks": (VARIANTS["sinks"], "class AttentionSinks("),
    "gaps": (changed(tiny_spec(), {f"{ATTENTION}.{word}": value for word, value in DILATED.items()}), "def every_nth"),
    "latents": (VARIANTS["latent"], "class LatentAttention("),
    "alibi": (VARIANTS["alibi"], "class AlibiBias("),
    "learned positions": (VARIANTS["learned"], "class LearnedPositions("),
    "layernorm": (VARIANTS["layernorm"], "class LayerNorm("),
    "parallel": (VARIANTS["parallel_pre"], "class ParallelResidual("),
    "depth gates": (VARIANTS["gated"], "class DepthGate("),
    "widths": (VARIANTS["narrow"], "class WidthChange("),
    "projections": (VARIANTS["narrow_conv"], "class ConvChange("),
    "caches of gated layers": (VARIANTS["gated"], "class GatedKeysLayer("),
}


def exported(spec: dict[str, Any], folder: Path) -> str:
    """The model file of a spec."""
    write_source(es.normalize_to_ir(spec), folder)
    return (folder / "modeling_eulerstack.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("piece", PIECES)
def test_code_is_exported_where_the_spec_asks_for_it_and_nowhere_else(piece: str, tmp_path: Path) -> None:
    spec, code = PIECES[piece]
    assert code in exported(spec, tmp_path)
    assert code not in exported(tiny_spec(), tmp_path)


def test_the_export_of_a_plain_llama_says_nothing_of_what_it_lacks(tmp_path: Path) -> None:
    text = exported(tiny_spec(), tmp_path).lower()
    for word in ("yarn", "longrope", "llama3", "ntk", "relu", "gelu", "alibi", "statelayer", "put_history", "mamba",
                 "retention", "hyena", "class layernorm", "learnedpositions", "2309.17453", "2309.00071"):  # fmt: skip
        assert word not in text, word


def test_every_table_of_an_export_holds_only_lines_that_are_used(tmp_path: Path) -> None:
    used = {"ACTIVATIONS": {"swiglu"}}
    tree = ast.parse(exported(tiny_spec(), tmp_path))
    tables = [node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == TABLE]
    assert len(tables) > 4
    for table in tables:
        assert set(ast.literal_eval(ast.unparse(ast.List(table.value.keys)))) == used.get(table.target.id, set())


def test_two_scalings_of_one_model_are_both_exported(tmp_path: Path) -> None:
    own = {"type": "linear", "factor": 2.0}
    text = exported(changed(VARIANTS["yarn"], {f"{ATTENTION}.rope": {"scaling": own}}), tmp_path)
    # The embedding's rule is in the config too, though every layer has one of its own.
    assert "def linear_frequencies(" in text and "def yarn_frequencies(" in text and "llama3" not in text


def parsed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A source file of a primitive, read as the compiler reads it."""
    name = f"planted_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return parse_module(name, OWN)


def test_a_strangers_module_may_build_on_that_of_another_package(tmp_path: Path, monkeypatch: Any) -> None:
    text = "from eulerstack_mixers.modules.norms import RMSNorm\n\n\nclass Stranger(RMSNorm):\n    pass\n"
    (tmp_path / "stranger_modules.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    classes = {("norm", "vendor.acme.stranger", ""): "stranger_modules:Stranger"}
    source = bundle(classes, frozenset(), "x", {"eulerstack_mixers"})
    assert "class RMSNorm(" in source and "import RMSNorm" not in source
    assert source.index("class RMSNorm(") < source.index("class Stranger(")


@pytest.mark.parametrize(
    "text",
    [
        "a, b = 1, 2",
        "(a, b) = 1, 2",
        "[a, *b] = [1, 2]",
        "a = b = 1",
        "a += 1",
        "if True:\n    a = 1",
        "try:\n    import flash\nexcept ImportError:\n    flash = None",
        "for a in (1, 2):\n    b = a",
        "with open('x') as a:\n    pass",
        "del a",
        "(a := 1)",
        "T: ByName = dict(a=1)",
        'T: ByName = {"a": 1, "b": 2}',
        'T: ByName = {\n    **{"a": 1},\n}',
        'T: ByName = {\n    1: "a",\n}',
        'T: ByName = {\n    "a": 1}',
        "T: ByName = {}",
    ],
)
def test_a_statement_that_can_not_be_carried_over_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CompileError, match="line 1"):
        parsed(text, tmp_path, monkeypatch)


def test_tables_take_keys_by_constants_and_comments_with_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'KEY = "b"\n# A table.\nT: ByName = {\n    "a": one,\n    # Why b.\n    KEY: (\n        two\n    ),\n}\n'
    item = parsed(text, tmp_path, monkeypatch).item_of("T")
    assert item.source_for(frozenset({"a"})) == '# A table.\nT: ByName = {\n    "a": one,\n}'
    assert (
        item.source_for(frozenset({"b"}))
        == "# A table.\nT: ByName = {\n    # Why b.\n    KEY: (\n        two\n    ),\n}"
    )
    assert item.source_for(frozenset()) == "# A table.\nT: ByName = {}"
    assert item.reads_for(frozenset({"b"})) == {TABLE, "KEY", "two"}
    assert item.reads_for(frozenset()) == {TABLE}


def test_registrations_and_single_names_are_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "class A:\n    pass\n\n\nREGISTER['a'] = A\nregister(A)\nA.name = 'a'\nx: int = 3\n"
    module = parsed(text, tmp_path, monkeypatch)
    assert [item.binds for item in module.items] == [("A",), (), (), (), ("x",)]
