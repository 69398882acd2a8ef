"""Every piece of a spec that the first documents show is valid as it stands there, and means what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import eulerstack as es
from eulerstack.cli import main
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import Spec, parse_text
from eulerstack.errors import EulerStackError
from eulerstack.ir.types import ModelIR

PAGE = (Path(__file__).parent / "specs.md").read_text(encoding="utf-8")
PIECES = dict(re.findall(r"^## (\w+)\n\n```yaml\n(.*?)^```", PAGE, re.M | re.S))
# What a piece leaves out; `vocab_size` is missing where a model is shown.
SECTIONS = {
    "schema_version": "schema_version: 1\n",
    "model": "model: { name: piece, d_model: 768, vocab_size: 32000, max_seq_len: 16384, n_heads: 8 }\n",
    "tokenizer_contract": "tokenizer_contract: { type: hf, pretrained: bpe-32k }\n",
    "embedding": "embedding: { type: learned, positional: rope }\n",
    "layer_templates": """\
layer_templates:
  decoder: { mixer: { type: attention, attention: {} }, ffn: { type: gated_mlp } }
  attn_block: { mixer: { type: attention, attention: {} }, ffn: { type: gated_mlp } }
  refine_block: { mixer: { type: attention, attention: {} }, ffn: { type: gated_mlp } }
  mamba_block: { mixer: { type: mamba, mamba: {} }, ffn: { type: gated_mlp } }
""",
    "layer_schedule": "layer_schedule:\n",
    "head": "head: { type: causal_lm }\n",
}  # fmt: skip
ROUTED = "    ffn: { type: moe, experts: 4, top_k: 2 }\n"


def completed(name: str) -> str:
    """A piece with the sections that it leaves out."""
    piece = PIECES[name]
    given = set(re.findall(r"^(\w+):", piece, re.M))
    sections = {key: text for key, text in SECTIONS.items() if key not in given}
    if name == "hints_objectives_tissue":
        # A probe needs experts to tell apart, and the column names every template there is.
        sections["layer_templates"] = "layer_templates:\n  decoder:\n    mixer: { type: attention }\n" + ROUTED
    if name == "latent_in_one_line":
        # The document shows the changed lines alone.
        piece += "    ffn: { type: gated_mlp }\n"
    if name == "let":
        piece = piece.replace('name: "let-demo"', 'name: "let-demo"\n  vocab_size: 32000')
    if "layer_schedule" not in given:
        templates = re.findall(r"^  (\w+):", sections.get("layer_templates", "") or piece, re.M)
        used = templates[:1] if "layer_templates" in sections else templates
        sections["layer_schedule"] += "".join(f"  - {{ template: {each}, repeat: 2 }}\n" for each in used)
    return "".join(sections.values()) + piece


def spec_of(name: str) -> Spec:
    return parse_text(completed(name), f"{name}.yml")


def ir_of(name: str) -> ModelIR:
    return es.normalize_to_ir(spec_of(name))


NEEDS_TORCH = {"ode_adaptive": [pytest.mark.torch]}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NEEDS_TORCH.get(name, [])) for name in PIECES if name != "weight_form"]
)
def test_the_piece_is_valid_and_can_be_priced(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{name}.yml"
    path.write_text(completed(name), encoding="utf-8")
    assert main(["--lang", "en", "validate", "--preset", str(path), "--report"]) == 0, capsys.readouterr().err
    assert es.count_parameters(ir_of(name)) > 0


def test_let_gives_the_numbers_that_its_comments_say() -> None:
    model = ir_of("let").model
    assert (model["d_model"], model["max_seq_len"], model["n_kv_heads"], len(ir_of("let").layers)) == (
        1024, 12288, 8, 24,
    )  # fmt: skip


def test_an_override_holds_for_its_own_layers_and_changes_no_parameter() -> None:
    ir = ir_of("override")
    assert [layer.mixer.params["window"] for layer in ir.layers] == [128] * 6 + [None] * 6
    assert [layer.residual.params["scaling"] for layer in ir.layers] == [0.5] * 6 + [1.0] * 6
    spec = spec_of("override")
    for path, value in (("mixer", {"type": "retnet"}), ("ffn", {"type": "mlp"})):
        changed: dict[str, Any] = {**spec, "layer_schedule": [{"template": "attn_dense", "override": {path: value}}]}
        with pytest.raises(EulerStackError):
            es.validate_v2(changed)


@pytest.mark.parametrize("expression", ["1 if 2 else 3", "max(1, 2)", '"a" + "b"', "let.n_heads ** 2", "1 < 2"])
def test_conditions_calls_and_texts_are_no_expressions(expression: str) -> None:
    text = completed("let").replace("let.n_heads // 2", expression)
    with pytest.raises(EulerStackError):
        es.validate_v2(parse_text(text, "let.yml"))


def test_reserved_names_are_warnings_and_never_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reserved.yml"
    path.write_text(completed("reserved_namespaces"), encoding="utf-8")
    assert main(["--lang", "en", "validate", "--preset", str(path), "--report"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("experimental.", "vendor.acme.", "future."))


def test_a_latent_as_wide_as_the_model_is_refused_and_half_of_it_saves_half_of_the_cache() -> None:
    with pytest.raises(EulerStackError, match="latent_dim"):
        es.normalize_to_ir(parse_text(completed("mla").replace("latent_dim: 384", "latent_dim: 768"), "mla.yml"))
    plain = parse_text(completed("mla").replace("latent_dim: 384", "window: null"), "mla.yml")
    whole, latent = (model_cost(es.normalize_to_ir(each)).cache_bytes(4096) for each in (plain, spec_of("mla")))
    assert latent < 0.5 * whole


def test_one_branch_nested_branches_and_equal_streams_are_refused() -> None:
    branched = completed("branched")
    lonely = re.sub(r"          attn:.*\n", "", branched)
    nested = branched.replace("{ type: attention, attention: {} }", "{ type: branched, branched: {} }")
    parallel = completed("parallel")
    for text in (lonely, nested, parallel.replace("stream: slow", "stream: fast")):
        with pytest.raises(EulerStackError):
            es.normalize_to_ir(parse_text(text, "piece.yml"))


def test_steps_of_an_ode_share_their_weights_and_discrete_ones_have_their_own() -> None:
    def count(name: str, steps: int) -> int:
        text = completed(name).replace("steps: 4", f"steps: {steps}")
        return es.count_parameters(es.normalize_to_ir(parse_text(text, f"{name}.yml")))

    assert count("ode_rk4", 1) == count("ode_rk4", 8)
    table = 768 * 32000 + 768
    assert count("discrete", 8) - table == 8 * (count("discrete", 1) - table)
