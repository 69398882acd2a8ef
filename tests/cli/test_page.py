"""`explain --html`: one page, complete, escaped, in five languages, with help for every key."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import eulerstack as es
from eulerstack.cli.page.spec import help_text, word_at
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.paths import is_reserved
from eulerstack.plugins.manager import get_registry
from eulerstack.presets import presets
from eulerstack.schema.assemble import assemble

from .conftest import Run

RICH = """\
# Everything that a page draws <in> its own way.
schema_version: 1
let: { width: 32 }
model: { name: "x <script>alert(1)</script> & y", d_model: "${let.width}", vocab_size: 64, max_seq_len: 48, n_heads: 4 }
tokenizer_contract: { type: hf }
embedding: { type: learned, positional: rope }
layer_templates:
  near: { mixer: { type: attention, attention: { window: 8 } }, ffn: { type: gated_mlp } }
  far: { mixer: { type: retnet, retnet: {} }, ffn: { type: moe, experts: 4, top_k: 2 } }
layer_schedule:
  - { template: near, repeat: 2 }
  - integrator: { type: ode_euler, steps: 3, body: far }
  - { template: far, depth_gating: { enabled: true, capacity: 0.5, router: top_k } }
head: { type: causal_lm }
tissue: { columns: [ { name: left, templates: [near] }, { name: right, templates: [far] } ] }
"""
VOID = {"meta", "line", "polyline", "br"}


class Page(HTMLParser):
    """The tree's shape, its texts by element, and what a browser would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.fetched: list[str] = []
        self.keys: dict[str, str] = {}
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [str(given[name]) for name in ("src", "data", "srcset") if name in given]
        if "id" in given:
            assert given["id"] not in self.ids, f"two elements have the id {given['id']}"
            self.ids.add(str(given["id"]))
        if tag == "a":
            self.links.add(str(given["href"]))
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self.open or not data.strip():
            return
        tag, given = self.open[-1]
        self.texts.setdefault(tag, []).append(data)
        if given.get("class") == "key":
            self.keys[data] = str(given["title"])


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    path = tmp_path / "rich.yml"
    path.write_text(RICH, encoding="utf-8")
    return path


def page_of(run: Run, spec: object, language: str, folder: Path, *options: str) -> tuple[str, Page]:
    file = folder / f"{language}.html"
    outcome = run("explain", spec, "--html", file, "--force", *options, lang=language)
    assert outcome.code == 0 and outcome.err == ""
    text = file.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja", "es"])
def test_the_page_is_whole_and_fetches_nothing(run: Run, rich: Path, tmp_path: Path, language: str) -> None:
    text, page = page_of(run, rich, language, tmp_path)
    assert f'<html lang="{language}">' in text and "default-src 'none'" in text
    assert page.fetched == [] and not re.search(r"https?://|@import|url\(", text)
    assert all(link.removeprefix("#") in page.ids for link in page.links)


def test_what_a_spec_says_can_not_become_markup(run: Run, rich: Path, tmp_path: Path) -> None:
    text, page = page_of(run, rich, "en", tmp_path)
    assert "<script>alert" not in text and page.texts["h1"] == ["x <script>alert(1)</script> & y"]
    assert text.count("<script>") == 1


def test_every_stage_template_and_column_is_drawn_with_its_numbers(run: Run, rich: Path, tmp_path: Path) -> None:
    _text, page = page_of(run, rich, "en", tmp_path)
    spans = page.texts["span"]
    for words in ("0–1 near", "2 far", "3 far", "attention + gated_mlp", "retnet + moe + depth_gating 0.5", "left"):
        assert words in spans, words
    assert 'ode_euler steps: 3, output: "token"' in page.texts["p"] and "evaluated 3 times" in page.texts["p"]
    cost = model_cost(es.normalize_to_ir(es.load(rich)))
    assert any(f"({cost.total:,})" in cell for cell in page.texts["td"])


def test_costs_are_those_of_the_context_and_batch_that_were_asked_for(run: Run, rich: Path, tmp_path: Path) -> None:
    _text, page = page_of(run, rich, "en", tmp_path, "--context", "16", "--batch", "3")
    assert "Cache at 3 × 16 tokens" in page.texts["th"]


def test_every_key_of_a_spec_has_the_help_of_the_chosen_language(run: Run, rich: Path, tmp_path: Path) -> None:
    _text, page = page_of(run, rich, "en", tmp_path)
    assert page.keys["d_model"].startswith("model.d_model: Width of the residual stream")
    assert "layer_schedule[1].integrator.steps" in page.keys["steps"] and "window" in page.keys
    unhelped = {"width", "near", "far"}
    spec = es.load(rich)
    keys = {str(path[-1]) for path in spec.key_positions}
    assert keys - set(page.keys) <= unhelped
    assert page_of(run, rich, "ja", tmp_path)[1].keys["d_model"] != page.keys["d_model"]


@pytest.mark.parametrize("preset", [preset.name for preset in presets()])
def test_every_word_of_every_preset_is_explained(preset: str) -> None:
    spec = es.load(preset)
    schema = assemble(get_registry(), "en")
    for path in spec.key_positions:
        found = word_at(schema, path, spec.raw)
        # Names that a spec chooses, and keys that no plugin reads; a block is told by its words.
        named = path[0] == "let" or path[-2:-1] == ("branches",) or is_reserved(str(path[0])) or path[-1] == "branched"
        if found is None:
            assert named, path
        else:
            assert help_text(path, found).startswith(str(path[0]))


def test_a_changed_spec_is_shown_as_it_is_compiled(run: Run, rich: Path, tmp_path: Path) -> None:
    text, page = page_of(run, rich, "en", tmp_path, "--set", "model.d_model=64")
    assert "d_model 64" in page.texts["p"][0] and "d_ff" in page.keys
    assert page.texts["h1"][0].startswith("x <script>")


def test_the_page_never_replaces_what_it_is_about(run: Run, rich: Path, tmp_path: Path) -> None:
    before = rich.read_bytes()
    outcome = run("explain", rich, "--html", rich, "--force")
    assert outcome.code == 1 and "what is read is there" in outcome.err and rich.read_bytes() == before
    assert run("compile", rich, "--output", tmp_path / "model.json").code == 0
    model = tmp_path / "model"
    model.mkdir()
    config = (tmp_path / "model.json").rename(model / "config.json")
    before = config.read_bytes()
    for command in (["explain", model, "--html", config], ["export-spec", model, "-o", config]):
        outcome = run(*command, "--force")
        assert outcome.code == 1 and "a part of the model" in outcome.err and config.read_bytes() == before
    assert run("export-spec", model, "-o", model / "spec.yml").code == 0
    assert run("explain", model, "--html", model / "page.html").code == 0


def test_an_existing_file_is_replaced_only_with_force(run: Run, rich: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("precious", encoding="utf-8")
    outcome = run("explain", rich, "--html", file)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 3
    assert file.read_text(encoding="utf-8") == "precious"
