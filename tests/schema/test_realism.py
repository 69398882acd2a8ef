"""Realism: each rule speaks up when it should, and says nothing about an ordinary model."""

from __future__ import annotations

from typing import Any

import pytest

from eulerstack.dsl.source import parse_text
from eulerstack.errors import Finding, msg
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins import Rule, hookimpl
from eulerstack.plugins.manager import Registry
from eulerstack.schema import report
from tests.schema.words import source

MODEL = """\
schema_version: 1
model: {name: m, d_model: 256, vocab_size: 50257, max_seq_len: 1024, n_heads: 4}
tokenizer_contract: {type: hf, pretrained: gpt2}
embedding: {type: learned, positional: rope}
layer_templates:
  one:
    mixer: {type: attention, attention: {window: 128}}
    ffn: {type: gated_mlp}
  two:
    mixer: {type: attention, attention: {}}
    ffn: {type: gated_mlp}
layer_schedule:
  - {template: one, repeat: 2}
  - {template: two, repeat: 1}
head: {type: causal_lm}
"""


@pytest.fixture(scope="module")
def registry() -> Any:
    return Registry(plugins=[source(pytest.importorskip("eulerstack_mixers.plugin"), "eulerstack-mixers")])


def findings(registry: Any, *changes: tuple[str, str]) -> list[Finding]:
    """What is found in the example after replacing pieces of its text."""
    text = MODEL
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    spec = parse_text(text, "m.yml")
    return report(normalize_to_ir(spec, registry), registry, spec)


def test_an_ordinary_model_is_not_commented_on(registry: Any) -> None:
    assert findings(registry) == []


@pytest.mark.parametrize(
    ("rule", "path", "changes"),
    [
        ("head_dim", "model.head_dim", ("n_heads: 4", "n_heads: 4, head_dim: 16")),
        ("head_dim", "model.head_dim", ("n_heads: 4", "n_heads: 4, head_dim: 512")),
        ("target_params", "model.target_params", ("n_heads: 4", "n_heads: 4, target_params: 5000000")),
        ("context_width", "model.max_seq_len", ("max_seq_len: 1024", "max_seq_len: 1000000")),
        ("window", "layer_templates.one.mixer.attention.window", ("window: 128", "window: 1024")),
        ("family_hint", "model.family_hint", ("n_heads: 4", "n_heads: 4, family_hint: some-moe")),
        ("family_hint", "model.family_hint", ("n_heads: 4", "n_heads: 4, family_hint: Qwen3-0.6B")),
        ("tokenizer", "model.vocab_size", ("vocab_size: 50257", "vocab_size: 32000")),
        ("tokenizer", "model.vocab_size", ("vocab_size: 50257", "vocab_size: 128256")),
        ("rope_scaling", "embedding.rope_scaling",
         ("positional: rope", "positional: rope, rope_scaling: {type: linear, factor: 100}")),
        ("rotation", "layer_templates.two.mixer.retnet.rope",
         [("positional: rope", "positional: rope, rope_partial_factor: 0.5"),
          ("type: attention, attention: {}", "type: retnet")]),
        ("rotation", "embedding.positional",
         [("attention: {window: 128}", "attention: {window: 128, rope: false}"),
          ("type: attention, attention: {}", "type: retnet, retnet: {rope: false}")]),
        ("rope_scaling", "embedding.rope_scaling",
         ("positional: rope", "positional: rope, rope_scaling: {type: linear, factor: 1}")),
        ("rope_scaling", "embedding.rope_scaling",
         ("positional: rope", "positional: rope, rope_scaling: {type: yarn, factor: 2, original_max_seq_len: 128}")),
        ("family_hint", "model.family_hint", ("n_heads: 4", "n_heads: 4, family_hint: deepseek_v3")),
        *(
            (rule, f"layer_templates.two.ffn.{word}",
             ("attention: {}}\n    ffn: {type: gated_mlp}", f"attention: {{}}}}\n    ffn: {{type: moe, {words}}}"))
            for rule, word, words in (
                ("experts", "top_k", "experts: 3, top_k: 2"),
                ("experts", "experts", "experts: 600, top_k: 1"),
                ("capacity", "capacity_factor", "experts: 8, top_k: 2, capacity_factor: 0.9"),
                ("capacity", "capacity_factor", "experts: 8, top_k: 2, capacity_factor: 4"),
            )
        ),
        ("hash_routing", "layer_templates.two.ffn.routing.type",
         [("attention: {}}\n    ffn: {type: gated_mlp}",
           "attention: {}}\n    ffn: {type: moe, experts: 8, top_k: 2, routing: {type: hash}}"),
          ("repeat: 2", "repeat: 3")]),
        ("latent_dim", "layer_templates.two.mixer.attention.latent_dim",
         ("attention: {}}", "attention: {latent_dim: 7}}")),
        ("latent_dim", "layer_templates.two.mixer.attention.latent_dim",
         ("attention: {}}", "attention: {latent_dim: 255, rope_head_dim: 512}}")),
        ("hyper_connection", "layer_templates.two.residual.hyper.expand",
         ("attention: {}}\n", "attention: {}}\n    residual: {type: hyper_connection, hyper: {expand: 1}}\n")),
        ("hyper_connection", "layer_templates.two.residual.hyper.expand",
         ("attention: {}}\n", "attention: {}}\n    residual: {type: hyper_connection, hyper: {expand: 9}}\n")),
        ("steps", "layer_schedule",
         ("{template: two, repeat: 1}", "integrator: {type: ode_euler, steps: 1, body: two}")),
        ("steps", "layer_schedule",
         ("{template: two, repeat: 1}", "integrator: {type: ode_rk4, steps: 33, body: two}")),
        ("branches", "layer_templates.two.mixer.branched.selector.top_k",
         ("type: attention, attention: {}", "type: branched, branched: {branches: {a: {type: attention}, "
          "b: {type: retnet}}, selector: {type: top_k, top_k: 2}}")),
        ("unused_template", "layer_templates.two", ("  - {template: two, repeat: 1}\n", "")),
        ("reserved_namespace", "experimental.x", ("head:", "experimental.x: {a: 1}\nhead:")),
        ("reserved_namespace", "model.vendor.acme.x", ("n_heads: 4", "n_heads: 4, vendor.acme.x: 1")),
    ],
)  # fmt: skip
def test_each_rule_speaks_up(registry: Any, rule: str, path: str, changes: Any) -> None:
    (found,) = findings(registry, *([changes] if isinstance(changes, tuple) else changes))
    assert (found.rule, found.path) == (rule, path)
    assert found.location is not None and found.location.file == "m.yml"
    assert found.what.render(str)


LONG = "x" * 150


@pytest.mark.parametrize(
    ("change", "path", "place"),
    [
        (("repeat: 2}", "repeat: 2, experimental.a.b: 1}"), "layer_schedule[0].experimental.a.b", "repeat: 2, experi"),
        (("repeat: 1}", "repeat: 1, vendor.acme.x: 1}"), "layer_schedule[1].vendor.acme.x", "repeat: 1, vendor"),
        (("head:", f"experimental.{LONG}: 1\nhead:"), f"experimental.{LONG}", f"experimental.{LONG}"),
        (("n_heads: 4", f"n_heads: 4, future.{LONG}: 1"), f"model.future.{LONG}", f"n_heads: 4, future.{LONG}"),
    ],
)
def test_a_reserved_key_is_found_at_its_own_place(
    registry: Any, change: tuple[str, str], path: str, place: str
) -> None:
    text = MODEL.replace(*change)
    (found,) = findings(registry, change)
    assert (found.rule, found.path) == ("reserved_namespace", path)
    before = text[: text.index(place)]
    line = text.splitlines()[before.count("\n")]
    assert found.location is not None
    assert (found.location.line, found.location.column) == (before.count("\n") + 1, line.rindex(": ") + 3)


def test_without_a_spec_a_reserved_key_is_named_by_the_layers_that_have_it(registry: Any) -> None:
    ir = normalize_to_ir(parse_text(MODEL.replace("repeat: 2}", "repeat: 2, experimental.a: 1}"), "m.yml"), registry)
    (found,) = report(ir, registry)
    assert found.path == "layers[0..1].experimental.a"


def test_groups_that_no_layer_uses_are_found(registry: Any) -> None:
    groups = ("n_heads: 4", "n_heads: 4, n_kv_heads: 2")
    latent = ("attention: {}}", "attention: {latent_dim: 128}}")
    assert findings(registry, groups, latent) == []
    both = findings(registry, groups, latent, ("{window: 128}", "{window: 128, latent_dim: 128}"))
    assert [(each.rule, each.path) for each in both] == [("latent_groups", "model.n_kv_heads")]
    blocks = "compression: {type: hca}"
    first, second = ("attention: {}}", f"attention: {{{blocks}}}}}"), ("{window: 128}", f"{{window: 128, {blocks}}}")
    assert findings(registry, groups, first) == []
    assert [each.rule for each in findings(registry, groups, first, second)] == ["latent_groups"]
    assert findings(registry, ("n_heads: 4", "n_heads: 4, n_kv_heads: 1"), first, second) == []


def test_disagreeing_ties_are_found_in_the_text(registry: Any) -> None:
    change = [
        ("positional: rope", "positional: rope, tie_word_embeddings: true"),
        ("causal_lm}", "causal_lm, tie_weights: false}"),
    ]
    assert [each.rule for each in findings(registry, *change)] == ["tied_weights"]


def test_a_hint_that_holds_is_not_commented_on(registry: Any) -> None:
    for hint in ("llama", "mistral-7b", "my own idea"):
        assert findings(registry, ("n_heads: 4", f"n_heads: 4, family_hint: {hint}")) == []


def test_without_the_spec_the_rules_of_the_ir_still_run(registry: Any) -> None:
    spec = parse_text(MODEL.replace("n_heads: 4", "n_heads: 4, head_dim: 16"), "m.yml")
    (found,) = report(normalize_to_ir(spec, registry), registry)
    assert found.rule == "head_dim"


def test_rules_of_plugins_run_and_one_that_fails_is_only_a_finding(registry: Any) -> None:
    class Plugin:
        @hookimpl
        def eulerstack_rules(self) -> Any:
            def fail(ir: Any) -> Any:
                raise KeyError("surprise")

            return (
                Rule("vendor.acme.bad", "fails", fail),
                Rule("vendor.acme.good", "speaks", lambda ir: [Finding("vendor.acme.good", msg("hello"))]),
            )

    mixers = source(pytest.importorskip("eulerstack_mixers.plugin"), "eulerstack-mixers")
    both = Registry(plugins=[mixers, source(Plugin(), "acme")])
    found = report(normalize_to_ir(parse_text(MODEL, "m.yml"), both), both)
    assert [each.rule for each in found] == ["vendor.acme.bad", "vendor.acme.good"]
    assert "surprise" in found[0].what.render(str) and "acme 1.0.0" in found[0].what.render(str)


@pytest.mark.parametrize(
    "answer",
    [None, 3, ["text"], [Finding("x", "no message")], [Finding("x", msg("a"), path=3)]],  # type: ignore[arg-type]
)
def test_a_rule_that_answers_nonsense_is_named_with_its_package(registry: Any, answer: Any) -> None:
    class Plugin:
        @hookimpl
        def eulerstack_rules(self) -> Any:
            return (Rule("vendor.acme.bad", "fails", lambda ir: answer),)

    mixers = source(pytest.importorskip("eulerstack_mixers.plugin"), "eulerstack-mixers")
    both = Registry(plugins=[mixers, source(Plugin(), "acme")])
    (found,) = report(normalize_to_ir(parse_text(MODEL, "m.yml"), both), both)
    assert found.rule == "vendor.acme.bad" and "acme 1.0.0 failed" in found.what.render(str)
