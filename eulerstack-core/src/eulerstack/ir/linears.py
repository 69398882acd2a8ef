"""Linear layers that namespaces have computed by other means: which they are, by what, and who says so.

Primitives declare their linear layers, the keys of namespaces stand in the IR's `extensions`; nothing else is stored,
so that this follows from the IR alone. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eulerstack.dsl.paths import parse_layers_path
from eulerstack.errors import CompatibilityError, Diagnostic, Message, msg
from eulerstack.ir.dims import layer_dims
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.places import modules_of, places_of_layers
from eulerstack.ir.types import FrozenMapping, LayerIR, ModelIR, PrimitiveIR, thaw
from eulerstack.plugins.asking import ask, namespace_fault
from eulerstack.plugins.faults import PLUGIN_ERRORS
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.primitive import Cost, Dims, Linear, Namespace, Problem, Replacement
from eulerstack.schema.claims import claimed_key

SEE = "writing-a-plugin.md#a-namespace-that-replaces-linear-layers"
# What the modules of a stack are called in the model around it.
STACK = "model."


@dataclass(frozen=True)
class Replaced:
    """A linear layer and what computes it: `node` is of the kind "linear", `path` that of the key that says so."""

    linear: Linear
    node: PrimitiveIR
    path: str
    dims: Dims

    @property
    def module(self) -> str:
        """Its name in the stack, "layers.3.mixer.q_proj"."""
        return self.linear.name.removeprefix(STACK)

    @property
    def dense_params(self) -> int:
        """Parameters that the plain layer would have."""
        bias = self.linear.out_features if self.linear.bias else 0
        return self.linear.in_features * self.linear.out_features + bias

    @property
    def dense_cost(self) -> Cost:
        """What the plain layer would cost."""
        flops = 2 * self.linear.in_features * self.linear.out_features
        return Cost(params=self.dense_params, flops_per_token=flops)

    def cost(self, registry: Registry, element_bytes: int) -> Cost:
        """What it costs as it is."""
        primitive = primitive_of(registry, "linear", self.node.type)
        return ask(registry, primitive, Cost, primitive.cost, self.dims, self.node.params, element_bytes)


def replaced_linears(ir: ModelIR, registry: Registry | None = None) -> tuple[Replaced, ...]:
    """Every linear layer that a namespace has computed by other means, in the model's order.

    Errors: CompatibilityError, located, for a key that stands where it concerns no layer, for what its plugin refuses,
    for a linear layer that keys of two plugins claim, and together with µP or with rounded weights.
    """
    registry = get_registry() if registry is None else registry
    handlers = {each.key: each for each in registry.namespaces() if each.replaces is not None}
    claims = [(path, key) for path in ir.extensions if handlers and (key := claimed_key(path, handlers)) is not None]
    if not claims:
        return ()
    linears = list(declared_linears(ir, registry))
    taken: dict[str, Replaced] = {}
    for path, key, mine in _concerned(ir, claims, [linear for linear, _ in linears]):
        answer = _asked(registry, handlers[key], thaw(ir.extensions[path]), mine, path, ir)
        dims = {linear.name: dims for linear, dims in linears}
        for linear in mine:
            if linear.name not in answer:
                continue
            if linear.name in taken:
                other = taken[linear.name].path
                what = msg("{name} is replaced by {other} already", name=linear.name, other=other)
                raise _refused(ir, path, what, msg("Let one of the two keys leave it out"))
            made = Replaced(linear, _node(linear, answer[linear.name]), path, dims[linear.name])
            _check(ir, registry, made)
            taken[linear.name] = made
    _check_training(ir, list(taken.values()))
    return tuple(taken[linear.name] for linear, _ in linears if linear.name in taken)


def declared_linears(ir: ModelIR, registry: Registry) -> Iterator[tuple[Linear, Dims]]:
    """Every linear layer that primitives declare, under its name in the model, with the sizes of its layer."""
    known: dict[int, list[tuple[str, Linear, Dims]]] = {}
    for index, (place, layer) in enumerate(places_of_layers(ir)):
        if id(layer) not in known:
            known[id(layer)] = list(_linears_in(ir, registry, layer))
        for part, linear, dims in known[id(layer)]:
            name = f"{STACK}{place}.{part}.{linear.name}"
            yield replace(linear, name=name, layer=index, template=layer.template), dims


def _linears_in(ir: ModelIR, registry: Registry, layer: LayerIR) -> Iterator[tuple[str, Linear, Dims]]:
    dims = layer_dims(ir, layer)
    for kind, part, node in modules_of(registry, layer):
        primitive = primitive_of(registry, kind, node.type)
        for linear in ask(registry, primitive, tuple, primitive.linears, dims, node.params):
            yield part, linear, dims


def _concerned(
    ir: ModelIR, claims: Sequence[tuple[str, str]], linears: Sequence[Linear]
) -> Iterator[tuple[str, str, list[Linear]]]:
    """(path, key, linear layers) for every claim; of two claims of one key the one further in has the layer."""
    owners: dict[tuple[str, int], tuple[tuple[int, int], str]] = {}
    templates = [layer.template for layer in ir.layers]
    for path, key in claims:
        rank, layers = _scope(ir, path, key, templates)
        for layer in layers:
            if (key, layer) not in owners or owners[key, layer][0] < rank:
                owners[key, layer] = (rank, path)
    for path, key in claims:
        mine = {layer for (claimed, layer), (_, owner) in owners.items() if claimed == key and owner == path}
        if mine:
            yield path, key, [linear for linear in linears if linear.layer in mine]


def _scope(ir: ModelIR, path: str, key: str, templates: Sequence[str]) -> tuple[tuple[int, int], Sequence[int]]:
    """How far in a key stands, and the layers that it concerns."""
    if path == key:
        return (0, 0), range(len(templates))
    place = path.removesuffix(f".{key}")
    if place.startswith("layer_templates.") and (name := place.partition(".")[2]) in templates:
        return (1, 0), [index for index, template in enumerate(templates) if template == name]
    entry = parse_layers_path(path)
    if entry is not None and entry[2] == key:
        # Of entries in one another, as streams of a stage are, the shorter is further in.
        return (2, -(entry[1] - entry[0])), range(entry[0], entry[1] + 1)
    what = msg("the linear layers that {key} replaces are those of layers, and here are none", key=key)
    fix = msg("Move it to the top level, into a template or into an entry of layer_schedule")
    raise _refused(ir, path, what, fix)


def _asked(
    registry: Registry, namespace: Namespace, value: Any, linears: Sequence[Linear], path: str, ir: ModelIR
) -> Mapping[str, Replacement]:
    """What a namespace has replaced, by the names of the linear layers that it was given."""
    assert namespace.replaces is not None
    try:
        answer = namespace.replaces(value, tuple(linears))
        unknown = set(answer) - {linear.name for linear in linears}
        wrong = [name for name, each in answer.items() if not isinstance(each, Replacement)]
        if unknown or wrong:
            raise ValueError(f"{sorted(unknown) or sorted(wrong)} is not what it was asked about")
        return answer
    except CompatibilityError as error:
        problems = [
            replace(each, path=each.path or _written(ir, path), location=each.location or ir.locations.get(path))
            for each in error.diagnostics
        ]
        raise CompatibilityError(problems) from error
    # The code is a plugin's and may raise or answer anything; the user needs the plugin's name.
    except PLUGIN_ERRORS as error:
        fault = namespace_fault(registry, namespace, error)
        raise CompatibilityError([replace(fault, path=_written(ir, path), location=ir.locations.get(path))]) from error


def _node(linear: Linear, replacement: Replacement) -> PrimitiveIR:
    sizes = {word: getattr(linear, word) for word in ("in_features", "out_features", "bias", "role")}
    return PrimitiveIR(replacement.type, FrozenMapping({**replacement.params, **sizes}))


def _check(ir: ModelIR, registry: Registry, made: Replaced) -> None:
    """What the linear primitive itself finds wrong."""
    primitive = primitive_of(registry, "linear", made.node.type, ir.locations.get(made.path))
    found = ask(registry, primitive, tuple, lambda *given: tuple(primitive.checks(*given)), made.dims, made.node.params)
    problems: list[Problem] = list(found)
    if problems:
        first = problems[0]
        path = ".".join(filter(None, (_written(ir, made.path), first.path)))
        what = msg("{name}: {problem}", name=made.linear.name, problem=first.what)
        place = ir.locations.get(made.path)
        raise CompatibilityError([Diagnostic("CompatibilityError", what, first.fix, first.see, path, place)])


def _check_training(ir: ModelIR, replaced: Sequence[Replaced]) -> None:
    """That nothing is asked for which is defined for matrices alone."""
    if not replaced:
        return
    first = replaced[0]
    if ir.training_hints["scaling"]["parametrization"] == "mup":
        what = msg("mup has rules for matrices, and {name} is none", name=first.linear.name)
        raise _refused(ir, first.path, what, msg("Type parametrization: standard, or delete {key}", key=first.path))
    if ir.compatibility["quant_aware_training"]["enabled"]:
        what = msg("quant_aware_training rounds matrices, and {name} is none", name=first.linear.name)
        raise _refused(ir, first.path, what, msg("Type enabled: false, or delete {key}", key=first.path))


def _refused(ir: ModelIR, path: str, what: Message, fix: Message) -> CompatibilityError:
    place = ir.locations.get(path)
    return CompatibilityError([Diagnostic("CompatibilityError", what, fix, SEE, _written(ir, path), place)])


def _written(ir: ModelIR, path: str) -> str:
    """The path at which a spec has what stands at `path` in its IR."""
    return str(ir.sources.get(path, path))
