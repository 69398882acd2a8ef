"""What a package says about a primitive of its own for the conformance kit, and the model that the kit puts it into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import KINDS, Kind, Namespace, Primitive
from eulerstack.testing.specs import Spec, changed, split_path, tiny_spec

TEMPLATE = "layer_templates.decoder"
PLACES: dict[str, str] = {
    "mixer": f"{TEMPLATE}.mixer",
    "ffn": f"{TEMPLATE}.ffn",
    "norm": f"{TEMPLATE}.norm",
    "residual": f"{TEMPLATE}.residual",
    "memory": f"{TEMPLATE}.memory",
    "position": "embedding",
    "head": "head",
    "integrator": "layer_schedule.1.integrator",
    "merge": "layer_schedule.1.merge",
}


@dataclass(frozen=True)
class Other:
    """Another legal value of a field, for the claim that every field matters.

    `given` are changes to the spec, by dotted paths, that both sides have: what the field needs to be in force.
    `effect` names what it does (one of `eulerstack.testing.effects.EFFECTS`); "" tries the usual ones.
    """

    value: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    effect: str = ""


@dataclass(frozen=True, eq=False)
class Example:
    """A primitive with example parameters, on which every claim about its kind is tried.

    kind, name   which primitive: "mixer", "vendor.acme.ema"
    params       its block, as a spec would write it; what is left out has its default
    words        what stands beside `type`: the words of an ffn, a memory, the `steps` of an integrator
    given        changes to the rest of the spec, by dotted paths: {"model.n_kv_heads": 3}; of the kind "linear" the key
                 that puts it into the model, {"`vendor.acme.form`": {…}}, at the top level
    others       field -> another legal value of it (or an `Other`), where the kit's guess from the schema won't do
    reference    the naive implementation; None: the one that the declaration names. It gets one sequence, and by their
                 names whatever it asks for: see `eulerstack.testing.reference`
    label        tells several examples of one primitive apart in the report
    exact        whether the past is the same to the bit whatever follows; False where the rounding of a token may
                 depend on other tokens, as in a Fourier transform
    choosing     parts of the names of parameters that only choose or watch, and have no gradient from the logits
    follow       (leader, *followers): makes routers of the followers choose what the leader's chose in its last pass
    static       whether it can be decoded with a static cache; where it can't, that is refused
    """

    kind: Kind
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    label: str = ""
    exact: bool = True
    choosing: tuple[str, ...] = ()
    follow: Callable[..., None] | None = None
    static: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of primitive; the kinds are {', '.join(KINDS)}")

    def __str__(self) -> str:
        return f"{self.name}[{self.label}]" if self.label else self.name

    @property
    def primitive(self) -> Primitive:
        """Its declaration; raises LookupError where no working plugin provides it."""
        registry = get_registry()
        try:
            return registry.get(self.kind, self.name)
        except LookupError as error:
            why = registry.explain_missing(self.kind, self.name)
            raise LookupError(f"{error}: {why.render(str)}" if why else str(error)) from None

    def spec(self) -> Spec:
        """The tiny spec with the primitive in its place."""
        spec = changed(tiny_spec(), self.given)
        if self.kind == "linear":
            return spec
        block = {self.primitive.block_name: dict(self.params)} if self.primitive.schema is not None else {}
        node = {"type": self.name, **block, **self.words}
        if self.kind == "position":
            del node["type"]
            words = {f"embedding.`{key}`": value for key, value in node.items()}
            return changed(spec, {"embedding.positional": self.name, **words})
        if self.kind == "head":
            return changed(spec, {"head": node})
        decoder = {"template": "decoder"}
        if self.kind == "integrator":
            stage = {"integrator": {"steps": 2, "body": "decoder", **node}}
            return changed(spec, {"layer_schedule": [decoder, stage, decoder]})
        if self.kind == "merge":
            streams = [{"stream": name, "body": [decoder]} for name in ("near", "far")]
            return changed(spec, {"layer_schedule": [decoder, {"parallel": streams, "merge": node}, decoder]})
        return changed(spec, {PLACES[self.kind]: node})

    @property
    def decodes(self) -> bool:
        """Whether a model that holds it keeps a cache while it decodes; not with an integrator that can't."""
        return self.kind != "integrator" or self.primitive.cached

    @property
    def namespaces(self) -> list[Namespace]:
        """Those whose keys `given` holds."""
        keys = [split_path(path)[0] for path in self.given]
        return [namespace for namespace in get_registry().namespaces() if namespace.key in keys]

    def path(self, word: str) -> str:
        """The dotted path of one of its words in `spec`: of a word beside `type`, of its block, or of its key."""
        if self.kind == "linear":
            (namespace,) = self.namespaces
            return f"`{namespace.key}`.{word}"
        beside = word.partition(".")[0] in self.primitive.inline
        block = "" if beside else f".`{self.primitive.block_name}`"
        return f"{PLACES[self.kind]}{block}.{word}"
