"""Namespaces that have linear layers computed by other means: which ones, at what price, and what is refused."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, Diagnostic, msg
from eulerstack.i18n import using
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.printer import print_ir
from eulerstack.plugins import Cost, Linear, Namespace, Primitive, Problem, Replacement, hookimpl
from eulerstack.plugins.manager import PluginSource, Registry
from eulerstack.plugins.sources import installed_sources
from tests.model.words import changed, tiny_spec

KEY = "vendor.acme.thin"
SCHEMA = {
    "type": "object",
    "properties": {
        "rank": {"type": "integer", "minimum": 1, "default": 2},
        "names": {"type": "array", "items": {"type": "string"}, "default": ["up_proj", "q_proj"]},
    },
    "additionalProperties": False,
}


def cost(dims: Any, params: Mapping[str, Any], element_bytes: int) -> Cost:
    """Two thin matrices."""
    weights = params["rank"] * (params["in_features"] + params["out_features"])
    return Cost(params=weights + params["bias"] * params["out_features"], flops_per_token=2 * weights)


def checks(dims: Any, params: Mapping[str, Any]) -> list[Problem]:
    if params["rank"] > params["in_features"]:
        return [Problem("rank", msg("a value is missing"), msg("Type rank: 1"), "x.md")]
    return []


def replaces(value: Mapping[str, Any], linears: Sequence[Linear]) -> dict[str, Replacement]:
    if value["rank"] == 13:
        problem = Diagnostic("CompatibilityError", msg("a value is missing"), msg("Type rank: 1"), "x.md")
        raise CompatibilityError([problem])
    if value["rank"] == 14:
        raise RuntimeError("out of luck")
    if value["rank"] == 15:
        return {"model.layers.77": Replacement("vendor.acme.thin", {"rank": 1})}
    chosen = [linear for linear in linears if linear.name.rpartition(".")[2] in value["names"]]
    return {linear.name: Replacement("vendor.acme.thin", {"rank": value["rank"]}) for linear in chosen}


def registry(**changes: Any) -> Registry:
    thin = Primitive("vendor.acme.thin", "linear", "two thin matrices", "acme.thin:Thin", cost=cost, checks=checks)
    fields = {"resolve": lambda value: value, "replaces": replaces, **changes}
    module = types.ModuleType("acme")
    module.eulerstack_linears = hookimpl(lambda: [thin])  # type: ignore[attr-defined]
    keys = [Namespace(name, SCHEMA, "thin matrices", **fields) for name in (KEY, "vendor.acme.again")]
    module.eulerstack_namespaces = hookimpl(lambda: keys)  # type: ignore[attr-defined]
    return Registry([*installed_sources(), PluginSource("acme", "acme", "3.1", lambda: module)])


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with using("en"):
        yield


@pytest.fixture(scope="module")
def acme() -> Registry:
    return registry()


def two_templates(**top: Any) -> dict[str, Any]:
    """Four layers, of two templates in turn."""
    spec = tiny_spec()
    (template,) = spec["layer_templates"].values()
    spec["layer_templates"] = {"one": template, "two": {**template, "ffn": {"type": "mlp", "bias": True}}}
    spec["layer_schedule"] = [{"template": "one"}, {"template": "two", "repeat": 2}, {"template": "one"}]
    return {**spec, **top}


def ranks(spec: dict[str, Any], known: Registry) -> dict[str, int]:
    replaced = replaced_linears(normalize_to_ir(spec, known), known)
    return {each.module: each.node.params["rank"] for each in replaced}


def test_a_key_concerns_all_layers_and_one_further_in_takes_its_own(acme: Registry) -> None:
    spec = two_templates(**{KEY: {"rank": 2, "names": ["up_proj"]}})
    places = [f"layers.{index}.ffn.up_proj" for index in range(4)]
    assert ranks(spec, acme) == dict.fromkeys(places, 2)
    spec["layer_templates"]["two"][KEY] = {"rank": 3, "names": ["up_proj"]}
    assert ranks(spec, acme) == dict(zip(places, (2, 3, 3, 2), strict=True))
    spec["layer_schedule"][2][KEY] = {"rank": 4, "names": ["v_proj"]}
    assert ranks(spec, acme) == {**dict(zip(places[:3], (2, 3, 3), strict=True)), "layers.3.mixer.v_proj": 4}


def test_streams_are_further_in_than_their_stage(acme: Registry) -> None:
    spec = two_templates()
    streams = [{"stream": name, "body": [{"template": "one"}]} for name in ("near", "far")]
    streams[1]["body"][0][KEY] = {"rank": 5, "names": ["k_proj"]}  # type: ignore[index]
    spec["layer_schedule"] = [{"parallel": streams, "merge": {"type": "add"}, KEY: {"names": ["k_proj"]}}]
    del spec["layer_templates"]["two"]
    found = ranks(spec, acme)
    assert found == {f"layers.0.streams.{number}.layers.0.mixer.k_proj": rank for number, rank in ((0, 2), (1, 5))}


def test_the_price_is_that_of_what_takes_the_place(acme: Registry) -> None:
    plain, spec = two_templates(), two_templates(**{KEY: {"rank": 2, "names": ["up_proj"]}})
    ir = normalize_to_ir(spec, acme)
    before, after = model_cost(normalize_to_ir(plain, acme), acme), model_cost(ir, acme)
    width, inner = ir.model["d_model"], ir.model["d_ff"]
    saved = 4 * (width * inner - 2 * (width + inner))
    assert before.total - after.total == before.active - after.active == saved
    for phase in ("decode", "prefill"):
        assert before.flops_per_token(16, phase) - after.flops_per_token(16, phase) == 2 * saved  # type: ignore[arg-type]
    assert before.cache_bytes(16) == after.cache_bytes(16)


def test_defaults_are_in_the_ir_and_its_text_says_the_same_again(acme: Registry) -> None:
    spec = two_templates()
    spec["layer_templates"]["two"][KEY] = {"rank": 3}
    ir = normalize_to_ir(spec, acme)
    assert ir.extensions[f"layer_templates.two.{KEY}"]["names"] == ("up_proj", "q_proj")
    again = normalize_to_ir(parse_text(print_ir(ir), "again.yml"), acme)
    assert again == ir and replaced_linears(again, acme) == replaced_linears(ir, acme)


def test_a_short_form_is_written_out() -> None:
    known = registry(resolve=lambda value: {"rank": 3, **value})
    assert set(ranks(two_templates(**{KEY: {}}), known).values()) == {3}


REFUSED = {
    "where there are no layers": ({f"model.{KEY}": {}}, f"model.{KEY}", "here are none"),
    "what the plugin refuses": ({KEY: {"rank": 13}}, KEY, "a value is missing"),
    "what the linear layer refuses": ({KEY: {"rank": 999}}, f"{KEY}.rank", "model.layers.0.mixer.q_proj: a value"),
    "two keys for one": ({KEY: {}, "vendor.acme.again": {}}, "vendor.acme.again", f"replaced by {KEY} already"),
    "mup": (
        {KEY: {}, "training_hints.scaling": {"parametrization": "mup", "base_width": 12}}, KEY, "rules for matrices"
    ),
    "code that fails": ({KEY: {"rank": 14}}, KEY, "from acme 3.1 failed: RuntimeError: out of luck"),
    "an answer about something else": ({KEY: {"rank": 15}}, KEY, "from acme 3.1 failed: ValueError"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_is_refused_with_its_place(name: str, acme: Registry) -> None:
    words, path, what = REFUSED[name]
    spec = two_templates()
    for word, value in words.items():
        if word.startswith("vendor."):
            spec[word] = value
        elif word.endswith(KEY):
            spec["model"][KEY] = value
        else:
            spec = changed(spec, {word: value})
    with pytest.raises(CompatibilityError) as caught:
        normalize_to_ir(parse_text(json.dumps(spec, indent=1), "spec.yml"), acme)
    (problem,) = caught.value.diagnostics
    head = problem.lines()[0]
    assert problem.path == path and problem.location is not None
    assert what in head, head


def test_rounded_weights_are_refused(acme: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eulerstack.schema.training_checks.find_spec", lambda name: True)
    spec = changed(two_templates(**{KEY: {}}), {"compatibility.quant_aware_training": {"enabled": True}})
    with pytest.raises(CompatibilityError, match="rounds matrices"):
        normalize_to_ir(spec, acme)


def test_a_short_form_that_fails_is_reported_with_its_package() -> None:
    for resolve in (lambda value: {"rank": "many"}, lambda value: 1 / 0):
        with pytest.raises(CompatibilityError, match="from acme 3.1 failed"):
            normalize_to_ir(two_templates(**{KEY: {}}), registry(resolve=resolve))
