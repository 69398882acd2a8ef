"""The primitives that a spec names, with their complete parameters, for the checks that look at several at once.

A plugin's own functions are called here and nowhere else in validation: what they raise becomes a problem that names
the plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from eulerstack.dsl.paths import dotted
from eulerstack.errors import Collector, Message, msg
from eulerstack.plugins.faults import PLUGIN_ERRORS, reason_of
from eulerstack.plugins.memory import check_updating, settle_memory
from eulerstack.plugins.primitive import Dims, Primitive, Problem
from eulerstack.schema import sections
from eulerstack.schema.defaults import complete, complete_words
from eulerstack.schema.held import held_mappings, holds_others
from eulerstack.schema.sizes import complete_model, dims_from
from eulerstack.schema.stages import scheduled_templates
from eulerstack.schema.training import training_hints

Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """A primitive in its place: `path` is that of the mapping that names it, `params` are complete and resolved.

    `dims` are the sizes there, which depend on the layer's width.
    `held` are the parts that it holds.
    """

    kind: str
    path: str
    primitive: Primitive
    params: Mapping[str, Any]
    dims: Dims
    held: tuple[Part, ...] = ()

    def all(self) -> Iterator[Part]:
        """The part, and those that it holds."""
        yield self
        yield from self.held

    def problem_path(self, path: str) -> str:
        """The full path of a problem whose path is relative to the primitive's own block."""
        word = path.split(".")[0].split("[")[0]
        beside = {*self.primitive.inline, *sections.shared_params(self.kind)}
        block = self.primitive.schema is not None and word not in beside
        base = f"{self.path}.{self.primitive.block_name}" if block else self.path
        return f"{base}.{path}" if path else base


class Parts:
    """Makes the parts of one spec; `usable` is False where its sizes contradict each other."""

    def __init__(self, spec: Mapping[str, Any], registry: Any, problems: Collector):
        self._registry = registry
        self._problems = problems
        self._failed: set[str] = set()
        self.last_template = [name for _, name in scheduled_templates(spec["layer_schedule"])][-1]
        self.model = complete_model(spec["model"])
        self.embedding = complete_words(sections.embedding()["properties"], spec["embedding"])
        self.training_hints = complete_words(training_hints()["properties"], spec.get("training_hints", {}))
        self.dims = dims_from(self.model, self.embedding["positional"])
        self.position: Part | None = None
        self.position = self.part("position", spec["embedding"], "embedding", "positional")
        if self.position is not None:
            self.embedding |= self.position.params

    def type_of(self, kind: str, given: Mapping[str, Any], word: str = "type") -> str | None:
        """The chosen type, the default where the spec leaves it out."""
        return given.get(word, sections.DEFAULT_TYPES.get(kind))

    def part(
        self,
        kind: str,
        given: Mapping[str, Any],
        path: str,
        word: str = "type",
        streams: tuple[str, ...] = (),
        model: Mapping[str, Any] | None = None,
    ) -> Part | None:
        """The primitive that `given` chooses; None when it isn't installed or its plugin fails.

        `streams` are the names of those that a merge is about, which its declaration finds among its parameters;
        `model` is the complete section as a layer of another width sees it.
        """
        name = self.type_of(kind, given, word)
        try:
            primitive: Primitive = self._registry.get(kind, name)
        except LookupError:
            return None
        params = complete_words({**primitive.inline, **sections.shared_params(kind)}, given)
        if primitive.schema is not None:
            params = complete(primitive.schema, given.get(primitive.block_name) or {}) | params
        held = self._held(primitive, given, path, model)
        if held is None:
            return None
        if primitive.holds is not None:
            nodes = {name: {"type": each.primitive.name, "params": each.params} for name, each in held.items()}
            params = {**params, primitive.holds.word: nodes}
        embedding = {**self.embedding, **params} if kind == "position" else self.embedding
        model = self.model if model is None else model
        context: dict[str, Any] = {"model": model, "embedding": embedding, "training_hints": self.training_hints}
        if kind == "head":
            context["last_template"] = self.last_template
        resolved = self.guarded(primitive, path, lambda: dict(primitive.resolve(params, context)))
        if kind == "memory" and resolved is not None:
            resolved = dict(settle_memory(resolved))
        if resolved is not None and streams:
            resolved = {**resolved, "streams": streams}
        dims = dims_from(model, self.embedding["positional"])
        return None if resolved is None else Part(kind, path, primitive, resolved, dims, tuple(held.values()))

    def _held(
        self, primitive: Primitive, given: Mapping[str, Any], path: str, model: Mapping[str, Any] | None
    ) -> dict[str, Part] | None:
        """The parts that a primitive holds, by name; None when one of them can't be made."""
        found: dict[str, Part] = {}
        for below, each in sorted(held_mappings(self._registry, primitive.kind, given), key=lambda item: str(item[0])):
            # One that may not be held is reported where types are looked up.
            part = None
            if not holds_others(self._registry, primitive.kind, each):
                part = self.part(primitive.kind, each, f"{path}.{dotted(below)}", model=model)
            if part is None:
                return None
            found[str(below[-1])] = part
        return found

    def checks(self, part: Part) -> list[Problem]:
        """What the primitive itself objects to."""
        checks = part.primitive.checks
        own = list(check_updating(part.params, "persistence")) if part.kind == "memory" else []
        return own + (self.guarded(part.primitive, part.path, lambda: _problems(checks(part.dims, part.params))) or [])

    def params_count(self, part: Part) -> int:
        """The primitive's parameters in one layer."""
        cost = part.primitive.cost
        own = self.guarded(part.primitive, part.path, lambda: int(cost(part.dims, part.params, 2).params)) or 0
        return own + sum(map(self.params_count, part.held))

    def units(self, part: Part) -> int:
        """How many experts or branches the primitive routes to."""
        routed_units = part.primitive.routed_units
        return self.guarded(part.primitive, part.path, lambda: int(routed_units(part.params))) or 0

    def norm_count(self, residual: Part, position: str, has_ffn: bool) -> int:
        """The norms that a layer of this residual holds."""
        slots = residual.primitive.norm_slots
        assert slots is not None, "a residual without norm_slots is not registered"
        return self.guarded(residual.primitive, residual.path, lambda: len(slots(position, has_ffn))) or 0

    def guarded(self, primitive: Primitive, path: str, call: Callable[[], Result]) -> Result | None:
        """What `call` returns; None when the plugin's code raises, which is then recorded once per primitive."""
        try:
            return call()
        # The code is a plugin's and may raise anything; the author of the spec needs the plugin's name.
        except PLUGIN_ERRORS as error:
            if primitive.name not in self._failed:
                self._failed.add(primitive.name)
                self._registry.keep_traceback(primitive, error)
                package, version = self._registry.origin(primitive)
                self._problems.add(
                    path,
                    msg(
                        "the code of {name} from {package} {version} failed: {error}",
                        name=primitive.name,
                        package=package,
                        version=version,
                        error=reason_of(error),
                    ),
                    msg("Install another version of {package}, or use another type", package=package),
                    "reference/errors.md#plugin-fault",
                )
            return None


def _problems(answers: Iterable[Any]) -> list[Problem]:
    """What a primitive's checks answered; TypeError for what is no Problem, which would fail far from its plugin."""
    problems = list(answers)
    for each in problems:
        whole = isinstance(each, Problem) and isinstance(each.path, str) and isinstance(each.see, str)
        if not (whole and isinstance(each.what, Message) and isinstance(each.fix, Message)):
            raise TypeError(f"{each!r:.80} is no Problem")
    return problems
