"""The intermediate representation: a complete, frozen, comparable description of one model.

No default is left out and nothing refers to anything else: the stack is a tuple of stages, and every layer in it holds
its own mixer, ffn, norm and residual. Locations are carried along but take no part in comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from eulerstack.errors import Location


class FrozenMapping(Mapping[str, Any]):
    """An immutable, hashable mapping of JSON values; nested mappings and lists are frozen on the way in."""

    __slots__ = ("_data", "_hash")

    def __init__(self, data: Mapping[str, Any] | None = None):
        self._data = {key: freeze(value) for key, value in (data or {}).items()}
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._data.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenMapping({self._data!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMapping, (self._data,)


def freeze(value: Any) -> Any:
    """`value` with every mapping and list in it made immutable."""
    if isinstance(value, FrozenMapping):
        return value
    if isinstance(value, Mapping):
        return FrozenMapping(value)
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """The plain dicts and lists of a frozen value, ready for JSON."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value


@dataclass(frozen=True)
class PrimitiveIR:
    """A primitive in its place: its type and every one of its parameters (block and inline ones together).

    `holds` is the word under which it holds others, {"type": …, "params": …} by name; "" where it holds none.
    """

    type: str
    params: FrozenMapping
    location: Location | None = field(default=None, compare=False, repr=False)
    holds: str = field(default="", kw_only=True)

    @property
    def held(self) -> dict[str, PrimitiveIR]:
        """The primitives that it holds, in the order of their names."""
        nodes = self.params[self.holds] if self.holds else {}
        return {name: PrimitiveIR(node["type"], node["params"], self.location) for name, node in nodes.items()}


@dataclass(frozen=True)
class NormIR(PrimitiveIR):
    """A norm and where it stands: "pre", "post", "sandwich" or "output"."""

    position: str = "pre"


@dataclass(frozen=True)
class LayerIR:
    """One decoder layer. `template` is the name of the template it came from.

    `depth_gating` holds capacity and router where only some tokens pass through the layer, `shape_change` d_out and
    projection where it works at a width of its own.
    """

    # What the schedule calls a stage that is more than a layer.
    word: ClassVar[str] = ""

    template: str
    mixer: PrimitiveIR
    ffn: PrimitiveIR
    norm: NormIR
    residual: PrimitiveIR
    depth_gating: FrozenMapping | None = None
    shape_change: FrozenMapping | None = None
    location: Location | None = field(default=None, compare=False, repr=False)
    memory: PrimitiveIR | None = field(default=None, kw_only=True)

    @property
    def is_wrapped(self) -> bool:
        """Whether something stands between the layer and the stream, so that its norms don't reach the stream."""
        return self.depth_gating is not None or self.shape_change is not None

    @property
    def slot_mixers(self) -> tuple[PrimitiveIR, ...]:
        """The mixers that own the layer's cache slots, in their order: those that its mixer holds, or it itself."""
        return tuple(self.mixer.held.values()) or (self.mixer,)

    @property
    def placed_mixers(self) -> tuple[tuple[str, PrimitiveIR], ...]:
        """The same with the path at which a spec names each."""
        path, mixer = f"layer_templates.{self.template}.mixer", self.mixer
        held = ((f"{path}.{mixer.type}.{mixer.holds}.{name}", each) for name, each in mixer.held.items())
        return tuple(held) or ((path, mixer),)

    @property
    def layers(self) -> tuple[LayerIR]:
        """The layer itself: what every stage has under this name are its layers."""
        return (self,)


@dataclass(frozen=True)
class IntegratorIR:
    """A stage that applies layers made from one template several times.

    `integrator` has the words `steps` and `output` among its parameters. `copies` layers have weights of their own; how
    often each is evaluated is the integrator's business.
    """

    word: ClassVar[str] = "integrator"

    integrator: PrimitiveIR
    body: LayerIR
    copies: int
    location: Location | None = field(default=None, compare=False, repr=False)

    @property
    def layers(self) -> tuple[LayerIR, ...]:
        """The layers with weights of their own."""
        return (self.body,) * self.copies


@dataclass(frozen=True)
class StreamIR:
    """One stream of a parallel stage: its name and its layers, in order."""

    name: str
    layers: tuple[LayerIR, ...]


@dataclass(frozen=True)
class ParallelIR:
    """A stage whose streams all read the same; `merge` makes one stream of what they hand on."""

    word: ClassVar[str] = "parallel"

    streams: tuple[StreamIR, ...]
    merge: PrimitiveIR
    location: Location | None = field(default=None, compare=False, repr=False)

    @property
    def layers(self) -> tuple[LayerIR, ...]:
        """The layers of the first stream, then those of the second, and so on."""
        return tuple(layer for stream in self.streams for layer in stream.layers)

    @property
    def merge_params(self) -> dict[str, Any]:
        """What a merge's declaration is asked with: its parameters, and the names of the streams under `streams`."""
        return {**self.merge.params, "streams": tuple(stream.name for stream in self.streams)}


Stage = LayerIR | IntegratorIR | ParallelIR
"""What the stack runs one after another."""


@dataclass(frozen=True)
class ModelIR:
    """A whole model.

    `stages` are what the schedule became: a plain entry is one stage a layer. `layers` are the layers of all stages.

    `model` holds the sizes under their YAML names, complete: name, d_model, vocab_size, max_seq_len, n_heads,
    n_kv_heads, head_dim, d_ff, norm_eps, residual_multiplier, initializer_range, dtype, family_hint, target_params.
    `embedding` holds type, tie_word_embeddings (agreed with the head's) and scale; `position` is what its `positional`
    chose. `execution_modes` are the phases of a generation, in order, and `transition` is what ends one; both are empty
    where the spec has none. `tissue` holds columns and connectivity; it is empty where the spec has none.
    `head_layer` is the layer that those of a head with layers of its own are made as; None for any other head.
    `extensions` maps the dotted path of each reserved-namespace key to its value, complete where a plugin claims the
    key, and holds the defaults of the words that plugins add to sections; `locations` and `sources` say where the keys
    stand and under which paths of the spec.
    """

    schema_version: int
    model: FrozenMapping
    tokenizer_contract: FrozenMapping
    embedding: FrozenMapping
    position: PrimitiveIR
    stages: tuple[Stage, ...]
    final_norm: PrimitiveIR | None
    head: PrimitiveIR
    training_hints: FrozenMapping
    compatibility: FrozenMapping
    extensions: FrozenMapping
    execution_modes: tuple[FrozenMapping, ...] = ()
    transition: FrozenMapping = FrozenMapping()
    tissue: FrozenMapping = FrozenMapping()
    head_layer: LayerIR | None = None
    location: Location | None = field(default=None, compare=False, repr=False)
    locations: FrozenMapping = field(default_factory=FrozenMapping, compare=False, repr=False)
    sources: FrozenMapping = field(default_factory=FrozenMapping, compare=False, repr=False)

    @cached_property
    def layers(self) -> tuple[LayerIR, ...]:
        """Every layer that has weights of its own, in the order of the stages that hold them."""
        return tuple(layer for stage in self.stages for layer in stage.layers)
