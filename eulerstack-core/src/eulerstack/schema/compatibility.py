"""Compatibility: every word is legal, but do they agree with each other and with what is installed?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from eulerstack.dsl.paths import dotted, is_reserved, key_text, show
from eulerstack.dsl.source import Spec, as_spec
from eulerstack.dsl.suggest import MANY, nearest
from eulerstack.errors import Collector, Message, msg
from eulerstack.plugins.primitive import CacheLayer, Primitive
from eulerstack.schema import overrides, sections
from eulerstack.schema.held import held_mappings, holds_others
from eulerstack.schema.packages import is_installed, package_of
from eulerstack.schema.parts import Part, Parts
from eulerstack.schema.phase_checks import check_phases
from eulerstack.schema.sizes import sizes_at_width
from eulerstack.schema.stages import runs_of_layers, scheduled_templates, typed_stages
from eulerstack.schema.training_checks import check_probe, check_quantization, check_tissue, check_training_hints
from eulerstack.schema.words import FOREIGN_VALUES, one_of
from eulerstack.schema.wrapping_checks import check_depth_gating, check_shape_change, is_wrapped

TEMPLATE_KINDS = ("mixer", "ffn", "norm", "residual")
# What only some templates have.
OPTIONAL_KINDS = ("memory",)


def check_compatibility(spec: Mapping[str, Any], registry: Any) -> None:
    """Raises CompatibilityError with every contradiction; the spec's structure must be valid."""
    data = as_spec(spec)
    problems = Collector("CompatibilityError", data.locate)
    _Checker(data, registry, problems).run()
    problems.raise_if_any()


class _Checker:
    """One run over one spec."""

    def __init__(self, spec: Spec, registry: Any, problems: Collector):
        self._spec = spec
        self._registry = registry
        self._problems = problems
        self._templates: Mapping[str, Any] = {
            name: template for name, template in spec["layer_templates"].items() if not is_reserved(name)
        }
        self._parts = Parts(spec, registry, problems)
        self._layers: dict[str, dict[str, Part]] = {}
        # The templates of layers that the head brings.
        self._of_head: set[str] = set()

    def run(self) -> None:
        """All checks."""
        self._installed()
        self._target()
        sizes_fit = self._sizes()
        self._positional_words()
        for name, template in self._templates.items():
            self._layers[name] = self._layer(template, f"layer_templates.{name}")
            if sizes_fit:
                check_shape_change(template, self._parts, self._layers[name], f"layer_templates.{name}", self._problems)
            self._state(template.get("state", {}), self._layers[name].get("mixer"), f"layer_templates.{name}.state")
        if sizes_fit:
            self._primitives()
        self._schedule(sizes_fit)
        self._lasting_memories()
        self._training()

    def _training(self) -> None:
        """What the words for training and for columns of templates say together."""
        check_training_hints(self._spec.get("training_hints", {}), self._spec["model"]["d_model"], self._problems)
        check_quantization(self._spec.get("compatibility", {}), self._problems)
        check_phases(self._spec.get("execution_modes", ()), self._spec.get("transition"), self._problems)
        scheduled = {name for _, name in scheduled_templates(self._spec["layer_schedule"])}
        is_routed = any(map(self._routes, scheduled | self._of_head))
        check_probe(self._spec.get("training_hints", {}), is_routed, self._problems)
        check_tissue(self._spec.get("tissue", {}), self._templates, scheduled, self._problems)

    def _routes(self, template: str) -> bool:
        """Whether a layer of this template chooses among several experts or branches; True where nobody can say."""
        parts = self._layers.get(template, {})
        return len(parts) < len(TEMPLATE_KINDS) or any(self._parts.units(part) > 1 for part in parts.values())

    def _add(self, path: str, what: Message, fix: Message, see: str) -> None:
        self._problems.add(path, what, fix, see)

    def _installed(self) -> None:
        """That a plugin provides each type."""
        self._require("position", self._spec["embedding"], "embedding", "positional")
        self._require("head", self._spec["head"], "head")
        for name, template in self._templates.items():
            for kind in (*TEMPLATE_KINDS, *OPTIONAL_KINDS):
                self._require(kind, template.get(kind, {}), f"layer_templates.{name}.{kind}")
        for path, kind, given, _ in typed_stages(self._spec["layer_schedule"]):
            self._require(kind, given, path)
        for path, entry, _ in runs_of_layers(self._spec["layer_schedule"]):
            norm = entry.get("override", {}).get("norm", {})
            if "type" in norm:
                self._require("norm", norm, f"{path}.override.norm")

    def _require(self, kind: str, given: Mapping[str, Any], path: str, word: str = "type") -> None:
        name = self._parts.type_of(kind, given, word)
        installed = self._registry.names(kind)
        if name is None:
            return
        path = f"{path}.{word}" if word in given else path
        if name in installed:
            self._required(kind, name, path)
            self._require_held(kind, self._registry.get(kind, name), given, path.removesuffix(f".{word}"))
            return
        reason = self._registry.explain_missing(kind, name)
        if reason:
            what = msg("no working plugin provides the {kind} {name}; {reason}", kind=kind, name=key_text(name),
                       reason=reason)  # fmt: skip
        else:
            what = msg("no installed plugin provides the {kind} {name}", kind=kind, name=key_text(name))
        fix = self._fix_missing(kind, name, word, installed, aside=reason is not None)
        self._add(path, what, fix, "reference/errors.md#missing-primitive")

    def _require_held(self, kind: str, primitive: Primitive, given: Mapping[str, Any], path: str) -> None:
        """That a plugin provides what a primitive holds, and that it holds none that holds others."""
        for below, each in held_mappings(self._registry, kind, given):
            if holds_others(self._registry, kind, each):
                single = [other.name for other in self._registry.primitives(kind) if other.holds is None]
                self._add(
                    f"{path}.{dotted(below)}.type",
                    msg("{name} can't stand inside of {holder}", name=each["type"], holder=primitive.name),
                    msg("Type one of: {choices}", choices=one_of(single)),
                    "reference/errors.md#nested",
                )
            else:
                self._require(kind, each, f"{path}.{dotted(below)}")

    def _required(self, kind: str, name: str, path: str) -> None:
        """That what the primitive itself needs is installed; looked up, never imported."""
        for package in self._registry.get(kind, name).requires:
            if not is_installed(package):
                self._add(
                    path,
                    msg("{name} needs the package {package}, which is not installed", name=name, package=package),
                    msg("pip install {package}", package=package),
                    "reference/errors.md#missing-primitive",
                )

    def _fix_missing(self, kind: str, name: str, word: str, installed: list[str], *, aside: bool) -> Message:
        """What to do; a plugin that was set `aside` may be why the word is missing."""
        if package := package_of(kind, name):
            return msg("pip install --upgrade {package}", package=package)
        foreign = FOREIGN_VALUES.get(name.lower())
        near = foreign if foreign in installed else nearest(name, installed)
        if aside and name.startswith("vendor.") and (near is None or near.split(".")[:2] != name.split(".")[:2]):
            # Another vendor's word that is spelled alike is no substitute.
            return msg("eulerstack plugins doctor")
        if near:
            return msg("Type {word}: {name}", word=word, name=near)
        if not installed:
            return msg("pip install eulerstack-mixers, or the package that provides {name}", name=key_text(name))
        if name.startswith("vendor."):
            return msg("Install the package that provides {name}, or type one of: {choices}", name=key_text(name),
                       choices=one_of(installed))  # fmt: skip
        return msg("Type one of: {choices}", choices=one_of(installed))

    def _target(self) -> None:
        targets = [target.name for target in self._registry.targets()]
        name = self._spec.get("compatibility", {}).get("compile_target", sections.DEFAULT_TARGET)
        if name not in targets:
            foreign = FOREIGN_VALUES.get(name.lower())
            near = foreign if foreign in targets else nearest(name, targets)
            self._add(
                "compatibility.compile_target",
                msg("no installed plugin provides the {kind} {name}", kind="compile_target", name=show(name)),
                msg("Type {word}: {name}", word="compile_target", name=near or one_of(targets)),
                "reference/errors.md#missing-primitive",
            )

    def _sizes(self) -> bool:
        """That heads divide what they must; False when head sizes make no sense."""
        model, given = self._parts.model, self._spec["model"]
        heads, kv_heads, width = model["n_heads"], model["n_kv_heads"], model["d_model"]
        fits = True
        if given.get("head_dim") is None and width % heads:
            fits = False
            self._add(
                "model.n_heads",
                msg("d_model {d_model} can't be divided by n_heads {n_heads}", d_model=width, n_heads=heads),
                msg("Type n_heads: {n_heads}, or give head_dim", n_heads=_nearest_divisor(width, heads)),
                "reference/errors.md#heads",
            )
        if heads % kv_heads:
            fits = False
            self._add(
                "model.n_kv_heads",
                msg("n_heads {n_heads} can't be divided by n_kv_heads {kv_heads}", n_heads=heads, kv_heads=kv_heads),
                msg("Type n_kv_heads: {kv_heads}", kv_heads=_nearest_divisor(heads, kv_heads)),
                "reference/errors.md#heads",
            )
        return fits

    def _positional_words(self) -> None:
        """Words of one kind of positions beside another kind."""
        embedding = self._spec["embedding"]
        positions = self._registry.primitives("position")
        chosen = self._parts.position
        for word in embedding:
            owners = [position.name for position in positions if word in position.inline]
            if chosen and owners and chosen.primitive.name not in owners:
                self._add(
                    f"embedding.{word}",
                    msg("{word} belongs to {owner}, but positional is {chosen}", word=word, owner=one_of(owners),
                        chosen=chosen.primitive.name),
                    msg("Delete {word}, or type positional: {owner}", word=word, owner=owners[0]),
                    "reference/errors.md#positional-word",
                )  # fmt: skip

    def _layer(self, template: Mapping[str, Any], path: str) -> dict[str, Part]:
        """The parts of a template; those that aren't installed are left out."""
        kinds = (*TEMPLATE_KINDS, *(kind for kind in OPTIONAL_KINDS if kind in template))
        change = template.get("shape_change")
        model = None if change is None else sizes_at_width(self._parts.model, change["d_out"])
        parts = {kind: self._parts.part(kind, template.get(kind, {}), f"{path}.{kind}", model=model) for kind in kinds}
        return {kind: part for kind, part in parts.items() if part is not None}

    def _state(self, state: Mapping[str, Any], mixer: Part | None, path: str) -> None:
        """That what a template says about its mixer's state is true."""
        if mixer is None:
            return
        name = mixer.primitive.name
        for word, said in state.items():
            if is_reserved(word) or _is_true(word, said, state, [part.primitive for part in mixer.all()]):
                continue
            if said:
                what = msg("{mixer} keeps no {word}", mixer=name, word=word)
            else:
                what = msg("{mixer} does keep {word}", mixer=name, word=word)
            fix = msg("Type {word}: {value}, or delete the line", word=word, value="false" if said else "true")
            self._add(f"{path}.{word}", what, fix, "reference/errors.md#state")

    def _primitives(self) -> None:
        """What the primitives themselves object to."""
        head = self._parts.part("head", self._spec["head"], "head")
        if head is not None:
            self._head_matrix(head)
            self._head_template(head)
        layers = (each for layer in self._layers.values() for part in layer.values() for each in part.all())
        stages = (
            self._parts.part(kind, given, path, streams=streams)
            for path, kind, given, streams in typed_stages(self._spec["layer_schedule"])
        )
        inherited: set[tuple[Message, Message]] = set()
        for part in filter(None, (self._parts.position, *layers, *stages, head)):
            for problem in self._parts.checks(part):
                # What a template inherits from the embedding is wrong there, not once more in each template.
                if (problem.what, problem.fix) in inherited:
                    continue
                if part is self._parts.position:
                    inherited.add((problem.what, problem.fix))
                self._problems.add(part.problem_path(problem.path), problem.what, problem.fix, problem.see)

    def _head_matrix(self, head: Part) -> None:
        """That nothing is said to be shared with a head that has no use for it."""
        uses = self._parts.guarded(head.primitive, head.path, lambda: bool(head.primitive.lm_head(head.params)))
        if uses is False and self._spec["embedding"].get("tie_word_embeddings"):
            self._add(
                "embedding.tie_word_embeddings",
                msg("the head {head} does not project with the embedding's table", head=head.primitive.name),
                msg("Type tie_word_embeddings: false, or delete the line"),
                "reference/errors.md#tied-weights",
            )

    def _head_template(self, head: Part) -> None:
        """That the template of a head's own layers is there."""
        declared = head.primitive.head_layers
        if declared is None:
            return
        own = self._parts.guarded(head.primitive, head.path, lambda: declared(self._parts.dims, head.params))
        if own is not None:
            self._of_head.add(own.template)
        # The template of a schedule's last layer, which is reported there, has come without being named here.
        if own is not None and own.template != self._parts.last_template:
            self._template(own.template, head.problem_path(own.word))

    def _schedule(self, sizes_fit: bool) -> None:
        """The references of the schedule and its overrides."""
        schedule = self._spec["layer_schedule"]
        for path, kind, given, _ in typed_stages(schedule):
            if kind == "integrator":
                self._template(given["body"], f"{path}.body")
        for path, entry, is_last in runs_of_layers(schedule):
            name, override = entry["template"], entry.get("override")
            self._template(name, f"{path}.template")
            mixer = self._layers.get(name, {}).get("mixer")
            if mixer is not None:
                check_depth_gating(entry, self._caches(mixer), path, self._problems)
            if override:
                allowed = overrides.check_words(override, f"{path}.override", self._problems)
                if allowed and name in self._templates:
                    ends = is_last and not is_wrapped(entry, self._templates[name])
                    self._override(name, override, f"{path}.override", ends, sizes_fit)

    def _lasting_memories(self) -> None:
        """That a memory which outlives its cache stands in layers of one evaluation, whose states it could keep."""
        for index, entry in enumerate(self._spec["layer_schedule"]):
            stage = entry.get("integrator", {})
            part = self._parts.part("integrator", stage, f"layer_schedule[{index}].integrator") if stage else None
            memory = self._layers.get(stage.get("body", ""), {}).get("memory")
            if part is None or memory is None or memory.params["persistence"] != "persistent":
                continue
            counting, params = part.primitive.evaluations, part.params
            count = self._parts.guarded(part.primitive, part.path, partial(counting, params)) or 1
            if count > 1:
                self._add(
                    f"{memory.path}.persistence",
                    msg(
                        "a layer that is evaluated {count} times in a pass can't have a persistent memory", count=count
                    ),
                    msg("Type persistence: session"),
                    "reference/errors.md#memory",
                )

    def _template(self, name: str, path: str) -> None:
        """That there is a template called `name`."""
        if name in self._templates:
            return
        near = nearest(name, self._templates) if len(self._problems.diagnostics) < MANY else None
        self._add(
            path,
            msg("there is no template {name}", name=show(name)),
            msg("Type {word}: {name}", word=path.rpartition(".")[2], name=near)
            if near
            else msg("Define it under layer_templates, or type one of: {choices}", choices=one_of(self._templates)),
            "reference/errors.md#template",
        )

    def _caches(self, mixer: Part) -> dict[str, CacheLayer]:
        """The cache slots of a mixer's layer, by the names of the mixers that own them; without those that fail."""
        found = {}
        for part in mixer.held or (mixer,):
            declared = part.primitive.cache
            cache = declared and self._parts.guarded(part.primitive, part.path, partial(declared, part.params))
            if cache is not None:
                found[part.primitive.name] = cache
        return found

    def _override(self, name: str, override: Mapping[str, Any], path: str, is_last: bool, sizes_fit: bool) -> None:
        before, template = self._layers[name], self._templates[name]
        if not overrides.check_fit(before, override, path, self._problems):
            return
        changed = overrides.applied(template, override, self._registry)
        after = self._layer(changed, f"layer_templates.{name}")
        if not (sizes_fit and before.keys() >= set(TEMPLATE_KINDS) and after.keys() >= set(TEMPLATE_KINDS)):
            return
        norms = (template.get("norm", {}), changed["norm"])
        positions = tuple(norm.get("position", sections.DEFAULT_NORM_POSITION) for norm in norms)
        overrides.check_count(self._parts, before, after, positions, is_last, path, self._problems)
        for kind, part in after.items():
            known = {(problem.path, problem.what) for problem in self._parts.checks(before[kind])}
            for problem in self._parts.checks(part):
                if (problem.path, problem.what) not in known:
                    section = "attention" if kind == "mixer" else kind
                    where = f"{path}.{section}.{problem.path}" if problem.path else f"{path}.{section}"
                    self._problems.add(where, problem.what, problem.fix, problem.see)


def _is_true(word: str, said: bool, state: Mapping[str, Any], mixers: list[Primitive]) -> bool:
    """Whether what `state` says under `word` is true of mixers that decode together."""
    kept = [mixer for mixer in mixers if word in mixer.state]
    if said:
        return bool(kept)
    # One state that has several names may be denied under one of them, not under all.
    return all(mixer.one_state and not all(state.get(name) is False for name in mixer.state) for mixer in kept)


def _nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` closest to `wanted`, the smaller of two at the same distance."""
    for distance in range(max(number, wanted)):
        for candidate in (wanted - distance, wanted + distance):
            if candidate > 0 and number % candidate == 0:
                return candidate
    return 1
