"""Small primitives, of this project and of a third party, for tests that need no other package."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from eulerstack.errors import EulerStackError, msg
from eulerstack.plugins import (
    MEMORY_WORDS,
    CacheLayer,
    Cost,
    Dims,
    Namespace,
    Primitive,
    Problem,
    SchemaFragment,
    hookimpl,
)
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.sources import PluginSource
from eulerstack.schema.compatibility import check_compatibility
from eulerstack.schema.validate import validate_structure

SPEC: dict[str, Any] = {
    "schema_version": 1,
    "model": {"name": "tiny", "d_model": 64, "vocab_size": 256, "max_seq_len": 128, "n_heads": 4},
    "tokenizer_contract": {"type": "hf"},
    "embedding": {"positional": "plain"},
    "layer_templates": {
        "one": {
            "mixer": {"type": "vendor.acme.gla", "vendor.acme.gla": {"rank": 4}},
            "ffn": {"type": "mlp", "activation": "relu"},
            "norm": {"type": "scale"},
            "residual": {"type": "sum"},
        }
    },
    "layer_schedule": [{"template": "one", "repeat": 2}],
    "head": {"type": "linear"},
}


def _checks(dims: Dims, params: Any) -> Iterator[Problem]:
    if dims.d_model % params["rank"]:
        yield Problem("rank", msg("rank must divide d_model"), msg("Type rank: 8"), "reference/errors.md#heads")


GLA = Primitive(
    name="vendor.acme.gla",
    kind="mixer",
    summary="a third party's mixer",
    module="acme.modules:GLA",
    schema={
        "type": "object",
        "properties": {
            "rank": {"type": "integer", "minimum": 1, "default": 8, "description": "Rank."},
            "gate": {"type": "object", "properties": {"bias": {"type": "boolean", "default": False}}},
            "decay": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "enum": ["learned", "fixed"]}]},
        },
        "required": ["rank"],
    },
    checks=_checks,
    cost=lambda dims, params, size: Cost(params=dims.d_model * params["rank"]),
    cache=lambda params: CacheLayer("eulerstack_state"),
    state=("ssm_state",),
)
COMPOSED = Primitive(
    name="vendor.acme.composed",
    kind="mixer",
    summary="a block whose words depend on each other",
    module="acme.modules:Composed",
    cache=lambda params: CacheLayer("eulerstack_state"),
    schema={
        "type": "object",
        "properties": {"mode": {"enum": ["a", "b"]}},
        "allOf": [
            {"if": {"properties": {"mode": {"const": "a"}}}, "then": {"properties": {"speed": {"type": "number"}}}}
        ],
    },
)
MLP = Primitive(
    name="mlp",
    kind="ffn",
    summary="a feed-forward block",
    module="own.modules:MLP",
    inline={"activation": {"type": "string", "enum": ["relu", "gelu"], "default": "gelu", "description": "Function."}},
    cost=lambda dims, params, size: Cost(params=2 * dims.d_model * dims.d_ff),
)
NORMS = (
    Primitive(name="scale", kind="norm", summary="a weight", module="own.modules:Scale",
              cost=lambda dims, params, size: Cost(params=dims.d_model)),
    Primitive(name="shift", kind="norm", summary="a weight and a bias", module="own.modules:Shift",
              inline={"bias": {"type": "boolean", "default": True}},
              cost=lambda dims, params, size: Cost(params=2 * dims.d_model)),
)  # fmt: skip
SUM = Primitive(
    name="sum",
    kind="residual",
    summary="a sum",
    module="own.modules:Sum",
    norm_slots=lambda position, has_ffn: ("a", "b", "c") if position == "sandwich" else ("a", "b"),
)
PLAIN = Primitive(name="plain", kind="position", summary="no positions", module="own.modules:Plain")
WAVES = Primitive(name="waves", kind="position", summary="waves", module="own.modules:Waves",
                  inline={"wave_base": {"type": "number", "default": 2.0}})  # fmt: skip
NOTE = Primitive(name="note", kind="memory", summary="a memory", module="own.modules:Note", inline=MEMORY_WORDS,
                 cache=lambda params: CacheLayer("eulerstack_state"))  # fmt: skip
LINEAR = Primitive(name="linear", kind="head", summary="a head", module="own.modules:Linear")


class Own:
    """This project's words in these tests."""

    @hookimpl
    def eulerstack_ffns(self) -> Iterable[Primitive]:
        return (MLP,)

    @hookimpl
    def eulerstack_norms(self) -> Iterable[Primitive]:
        return NORMS

    @hookimpl
    def eulerstack_residuals(self) -> Iterable[Primitive]:
        return (SUM,)

    @hookimpl
    def eulerstack_memories(self) -> Iterable[Primitive]:
        return (NOTE,)

    @hookimpl
    def eulerstack_positions(self) -> Iterable[Primitive]:
        return (PLAIN, WAVES)

    @hookimpl
    def eulerstack_heads(self) -> Iterable[Primitive]:
        return (LINEAR,)


class Acme:
    """A third party's words."""

    @hookimpl
    def eulerstack_mixers(self) -> Iterable[Primitive]:
        return (GLA, COMPOSED)

    @hookimpl
    def eulerstack_namespaces(self) -> Iterable[Namespace]:
        schema = {"type": "object", "properties": {"endpoint": {"type": "string"}}}
        return (Namespace("vendor.acme.telemetry", schema, "where to send figures"),)

    @hookimpl
    def eulerstack_schema_fragments(self) -> Iterable[SchemaFragment]:
        return (SchemaFragment("model", {"vendor.acme.budget": {"type": "integer", "minimum": 1}}),)


def source(plugin: object, package: str) -> PluginSource:
    """A plugin as if it came from an installed distribution."""
    return PluginSource(package, package, "1.0.0", lambda: plugin)


def make_registry(*others: object) -> Registry:
    """A registry of this file's words and other plugins'."""
    plugins = [source(Own(), "eulerstack-mixers"), source(Acme(), "acme"), *others]
    registry = Registry(plugins=plugins)
    assert not registry.faults(), [str(record.error) for record in registry.faults()]
    return registry


def third_party(primitive: Primitive) -> PluginSource:
    """A third party's plugin with one mixer."""

    class Plugin:
        @hookimpl
        def eulerstack_mixers(self) -> Iterable[Primitive]:
            return (primitive,)

    return source(Plugin(), "other")


def spec_with(**changes: Any) -> dict[str, Any]:
    """The example spec with values at dotted paths (`__` for a dot) set; `...` deletes."""
    spec = copy.deepcopy(SPEC)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place: Any = spec
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return spec


def problems_of(spec: Any, registry: Any, compatibility: bool = True) -> list[SimpleNamespace]:
    """What validation says about a spec: category, path, what, fix."""
    try:
        validate_structure(spec, registry)
        if compatibility:
            check_compatibility(spec, registry)
    except EulerStackError as error:
        return [
            SimpleNamespace(category=d.category, path=d.path, what=d.what.render(str), fix=d.fix.render(str),
                            location=d.location, see=d.see)
            for d in error.diagnostics
        ]  # fmt: skip
    return []
