"""From a valid spec to the complete IR: defaults filled, schedule expanded, everything resolved.

The passes: reserved keys are taken out; overrides make variants of templates; the assembled schema completes the whole;
each primitive resolves its parameters; the schedule becomes a list of stages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eulerstack.dsl.paths import is_reserved, layers_path
from eulerstack.dsl.source import Spec, as_spec
from eulerstack.errors import Diagnostic, Message, NormalizationError, msg
from eulerstack.ir.head_layers import head_layers_of
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.lookup import primitive_of
from eulerstack.ir.reserved import take_out
from eulerstack.ir.types import (
    FrozenMapping,
    IntegratorIR,
    LayerIR,
    ModelIR,
    NormIR,
    ParallelIR,
    PrimitiveIR,
    Stage,
    StreamIR,
)
from eulerstack.plugins.asking import ask, written_out
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.memory import settle_memory
from eulerstack.plugins.primitive import Kind
from eulerstack.schema.assemble import assemble
from eulerstack.schema.claims import claimed_key
from eulerstack.schema.compatibility import check_compatibility
from eulerstack.schema.defaults import complete, complete_words
from eulerstack.schema.overrides import applied
from eulerstack.schema.sections import DEFAULT_TYPES, MAX_D_FF, ir_words, shared_params
from eulerstack.schema.sizes import complete_model, dims_from, feed_forward_width, sizes_at_width
from eulerstack.schema.stages import scheduled_templates
from eulerstack.schema.validate import validate_structure
from eulerstack.schema.wrapping import depth_gating, shape_change

Data = dict[str, Any]

LAYER_KINDS: tuple[Kind, ...] = ("mixer", "ffn", "norm", "residual")
# What only some templates have.
OPTIONAL_KINDS: tuple[Kind, ...] = ("memory",)
SEE_SIZES = "reference/errors.md#sizes"


def normalize_to_ir(spec: Mapping[str, Any], registry: Registry | None = None, *, known_valid: bool = False) -> ModelIR:
    """The IR of a spec: of a `Spec`, whose positions it keeps, or of a plain mapping.

    Raises what validation raises, unless the spec is known to be valid; NormalizationError for what only the expansion
    can see.
    """
    registry = get_registry() if registry is None else registry
    read = as_spec(spec)
    if not known_valid:
        validate_structure(read, registry)
        check_compatibility(read, registry)
    ir = _Normalizer(read, registry).model_ir()
    # What keys of namespaces make of linear layers, they may refuse.
    replaced_linears(ir, registry)
    return ir


@dataclass(frozen=True)
class _Variant:
    """A template as one or more schedule entries use it: with the same override."""

    template: str
    raw: Mapping[str, Any]


def gated(layer: LayerIR, gating: Mapping[str, Any] | None) -> LayerIR:
    """The layer with the gate that an entry of the schedule gives it."""
    if gating is None or not gating["enabled"]:
        return layer
    words = {word: gating[word] for word in depth_gating()["properties"] if word != "enabled"}
    return replace(layer, depth_gating=FrozenMapping(words))


def ends_with_norm(stage: Stage) -> bool:
    """Whether the stream that leaves a stage is normed: after a layer that stands alone, with nothing around it."""
    return isinstance(stage, LayerIR) and stage.norm.position == "post" and not stage.is_wrapped


class _Normalizer:
    """One run over one spec."""

    def __init__(self, spec: Spec, registry: Registry):
        self.registry = registry
        self.locate = spec.locate
        given, self.reserved = take_out({key: value for key, value in spec.items() if key != "let"})
        self._complete_reserved()
        self.names = list(given["layer_templates"])
        # For a head with layers of its own, the variant of each template without an override.
        self.plain: dict[str, str] = {}
        self.variants, self.entries = self._variants(given)
        optional: Data = {
            "training_hints": {},
            "compatibility": {},
            "tokenizer_contract": {},
            "embedding": {},
            "head": {},
        }
        if "execution_modes" in given:
            optional["transition"] = {}
        templates = {name: variant.raw for name, variant in self.variants.items()}
        self.spec: Data = complete(
            assemble(registry), {**optional, **given, "layer_templates": templates, "layer_schedule": self.entries}
        )

    def _complete_reserved(self) -> None:
        """Fills in the defaults of the words that plugins add to sections, and those inside of claimed values."""
        for fragment in self.registry.schema_fragments():
            for word, schema in fragment.properties.items():
                path = f"{fragment.place}.{word}" if fragment.place else word
                if path in self.reserved:
                    self.reserved[path] = complete(schema, self.reserved[path])
                elif "default" in schema:
                    self.reserved[path] = complete(schema, schema["default"])
        handlers = {namespace.key: namespace for namespace in self.registry.namespaces()}
        for path, value in self.reserved.items():
            if (key := claimed_key(path, handlers)) is not None:
                long_form = written_out(self.registry, handlers[key], value, path, self.locate(path))
                self.reserved[path] = complete(handlers[key].schema, long_form)

    def _error(self, path: str, what: Message, fix: Message) -> NormalizationError:
        return NormalizationError(
            [Diagnostic("NormalizationError", what, fix, SEE_SIZES, path, self.locate(path) if path else None)]
        )

    def _variants(self, given: Data) -> tuple[dict[str, _Variant], list[Data]]:
        """The distinct templates after overrides under unique keys, and the schedule that names those keys."""
        variants: dict[str, _Variant] = {}
        keys: dict[tuple[str, str], str] = {}
        entries = []

        def key_of(name: str, override: Data) -> str:
            key = keys.setdefault((name, json.dumps(override, sort_keys=True)), f"variant{len(keys)}")
            if key not in variants:
                raw = applied(given["layer_templates"][name], override, self.registry)
                kinds = (*LAYER_KINDS, *(kind for kind in OPTIONAL_KINDS if kind in raw))
                variants[key] = _Variant(name, self._with_blocks(raw, kinds))
            return key

        def run(entry: Data) -> Data:
            rest = {word: value for word, value in entry.items() if word != "override"}
            return {**rest, "template": key_of(entry["template"], entry.get("override") or {})}

        for entry in given["layer_schedule"]:
            if "integrator" in entry:
                stage = self._with_block("integrator", entry["integrator"])
                entries.append({**entry, "integrator": {**stage, "body": key_of(stage["body"], {})}})
            elif "parallel" in entry:
                streams = [{**stream, "body": [run(each) for each in stream["body"]]} for stream in entry["parallel"]]
                merge = self._with_block("merge", entry["merge"])
                entries.append({**entry, "parallel": streams, "merge": merge})
            else:
                entries.append(run(entry))
        head = primitive_of(self.registry, "head", given.get("head", {}).get("type", DEFAULT_TYPES["head"]))
        if head.head_layers is not None:
            # Which one the head's layers have is known when the head is resolved.
            self.plain = {name: key_of(name, {}) for name in self.names}
        return variants, entries

    def _with_blocks(self, raw: Data, kinds: Sequence[Kind]) -> Data:
        """Every parameter block that the chosen types have, empty where the spec leaves it out."""
        for kind in kinds:
            word: str = kind
            name = raw[word].get("type")
            if name is None:
                continue
            raw[word] = self._with_block(kind, raw[word])
        return raw

    def _with_block(self, kind: Kind, given: Data) -> Data:
        """What names a primitive, with its block and those of the primitives that it holds."""
        primitive = primitive_of(self.registry, kind, given["type"])
        if primitive.schema is None:
            return given
        block = given.get(primitive.block_name, {})
        if primitive.holds is not None:
            held = block.get(primitive.holds.word, {})
            block = {**block, primitive.holds.word: {name: self._with_block(kind, held[name]) for name in held}}
        return {**given, primitive.block_name: block}

    def model_ir(self) -> ModelIR:
        """The whole model."""
        model = self._model()
        embedding = self._embedding()
        position = self._position(model, embedding)
        positioned = {**embedding, "positional": position.type, **position.params}
        context = {"model": model, "embedding": positioned, "training_hints": self.spec["training_hints"]}
        scheduled = [key for _, key in scheduled_templates(self.entries)]
        last_template = self.variants[scheduled[-1]].template
        head = self._primitive("head", self.spec["head"], {**context, "last_template": last_template}, "head")
        embedding["tie_word_embeddings"] = self._tied(head, embedding)
        own = head_layers_of(self.registry, dims_from(model, position.type), head)
        needed = {*scheduled, *({self.plain[own.template]} if own else ())}
        templates = {
            key: self._layer(variant.template, self.spec["layer_templates"][key], context)
            for key, variant in self.variants.items()
            if key in needed
        }
        self.used = {self.variants[key].template for key in needed}
        stages, extensions, written = self._expand(templates, context)
        last = stages[-1].layers[-1].norm
        normed = ends_with_norm(stages[-1])
        return ModelIR(
            schema_version=self.spec["schema_version"],
            model=FrozenMapping(model),
            tokenizer_contract=self._section("tokenizer_contract"),
            embedding=FrozenMapping(embedding),
            position=position,
            stages=stages,
            final_norm=None if normed else PrimitiveIR(last.type, last.params, last.location),
            head=head,
            training_hints=self._section("training_hints"),
            compatibility=self._section("compatibility"),
            extensions=FrozenMapping(extensions),
            execution_modes=tuple(map(FrozenMapping, self.spec.get("execution_modes", ()))),
            transition=self._section("transition") if "transition" in self.spec else FrozenMapping(),
            tissue=self._section("tissue") if "tissue" in self.spec else FrozenMapping(),
            head_layer=templates[self.plain[own.template]] if own else None,
            location=self.locate(""),
            locations=FrozenMapping({path: self.locate(source) for path, source in written.items()}),
            sources=FrozenMapping(written),
        )

    def _section(self, name: str) -> FrozenMapping:
        """A section's own words; those that plugins add to it stand among the extensions."""
        return FrozenMapping({word: value for word, value in self.spec[name].items() if not is_reserved(word)})

    def _model(self) -> Data:
        given = self.spec["model"]
        width = feed_forward_width(given)
        if given["d_ff"] is None and not 0.5 < width <= MAX_D_FF:
            raise self._error(
                "model.mlp_ratio",
                msg("mlp_ratio * d_model gives a feed-forward width of {width}", width=width),
                msg("choose mlp_ratio so that the width lies in 1..{limit}; usual ratios are 2 to 8", limit=MAX_D_FF),
            )
        model = complete_model(given)
        return {word: model[word] for word in ir_words("model")}

    def _embedding(self) -> Data:
        return {word: self.spec["embedding"][word] for word in ir_words("embedding")}

    def _position(self, model: Data, embedding: Data) -> PrimitiveIR:
        given = self.spec["embedding"]
        positioned = {**embedding, "positional": given["positional"]}
        context = {"model": model, "embedding": positioned, "training_hints": self.spec["training_hints"]}
        named = {**given, "type": given["positional"]}
        return self._primitive("position", named, context, "embedding")

    def _tied(self, head: PrimitiveIR, embedding: Data) -> bool:
        """Whether `lm_head` is the embedding's table: what the head's own word says, or else the embedding's."""
        primitive = primitive_of(self.registry, "head", head.type)
        if not ask(self.registry, primitive, bool, primitive.lm_head, head.params):
            return False
        said = head.params.get("tie_weights", embedding["tie_word_embeddings"])
        return True if said is None else bool(said)

    def _params(self, kind: Kind, given: Data, context: Data, path: str) -> FrozenMapping:
        """The complete, resolved parameters of a primitive: its block's words and those beside `type` together."""
        location = self.locate(path)
        primitive = primitive_of(self.registry, kind, given["type"], location)
        inline = complete_words({**primitive.inline, **shared_params(kind)}, given)
        block = {} if primitive.schema is None else complete(primitive.schema, given.get(primitive.block_name, {}))
        if primitive.holds is not None:
            place = f"{path}.{primitive.block_name}.{primitive.holds.word}"
            block[primitive.holds.word] = {
                name: {"type": each["type"], "params": self._params(kind, each, context, f"{place}.{name}")}
                for name, each in sorted(block.get(primitive.holds.word, {}).items())
            }
        params = ask(self.registry, primitive, dict, lambda: dict(primitive.resolve({**block, **inline}, context)))
        return FrozenMapping(settle_memory(params) if kind == "memory" else params)

    def _primitive(self, kind: Kind, given: Data, context: Data, path: str) -> PrimitiveIR:
        params = self._params(kind, given, context, path)
        holds = primitive_of(self.registry, kind, given["type"]).holds
        return PrimitiveIR(given["type"], params, self.locate(path), holds=holds.word if holds else "")

    def _layer(self, name: str, template: Data, context: Data) -> LayerIR:
        path = f"layer_templates.{name}"
        norm, memory, change = template["norm"], template.get("memory"), template.get("shape_change")
        if change is not None:
            change = {word: change[word] for word in shape_change()["properties"]}
            context = {**context, "model": sizes_at_width(context["model"], change["d_out"])}
        return LayerIR(
            template=name,
            mixer=self._primitive("mixer", template["mixer"], context, f"{path}.mixer"),
            ffn=self._primitive("ffn", template["ffn"], context, f"{path}.ffn"),
            norm=NormIR(
                norm["type"],
                self._params("norm", norm, context, f"{path}.norm"),
                self.locate(f"{path}.norm"),
                position=norm["position"],
            ),
            residual=self._primitive("residual", template["residual"], context, f"{path}.residual"),
            memory=self._primitive("memory", memory, context, f"{path}.memory") if memory else None,
            shape_change=None if change is None else FrozenMapping(change),
            location=self.locate(path),
        )

    def _integrator(self, given: Data, body: LayerIR, context: Data, path: str) -> IntegratorIR:
        node = self._primitive("integrator", given, context, path)
        primitive = primitive_of(self.registry, "integrator", node.type, node.location)
        return IntegratorIR(
            node, body, ask(self.registry, primitive, int, primitive.copies, node.params), node.location
        )

    def _expand(
        self, templates: Mapping[str, LayerIR], context: Data
    ) -> tuple[tuple[Stage, ...], Data, dict[str, str]]:
        """The stages of the schedule, and the reserved keys of what the model uses, entries named by their layers.

        The third part says for every key the path at which the spec has it.
        """
        stages: list[Stage] = []
        # The path of every entry, those of streams too, with its layers.
        places: dict[str, tuple[int, int]] = {}
        first = 0
        for index, entry in enumerate(self.spec["layer_schedule"]):
            path, before = f"layer_schedule[{index}].", first
            if "integrator" in entry:
                given = entry["integrator"]
                stages.append(self._integrator(given, templates[given["body"]], context, f"{path}integrator"))
                first += len(stages[-1].layers)
            elif "parallel" in entry:
                streams = []
                for number, stream in enumerate(entry["parallel"]):
                    layers: list[LayerIR] = []
                    for line, run in enumerate(stream["body"]):
                        layers += [gated(templates[run["template"]], run.get("depth_gating"))] * run["repeat"]
                        places[f"{path}parallel[{number}].body[{line}]."] = (first, first + run["repeat"] - 1)
                        first += run["repeat"]
                    streams.append(StreamIR(stream["stream"], tuple(layers)))
                merge = self._primitive("merge", entry["merge"], context, f"{path}merge")
                stages.append(ParallelIR(tuple(streams), merge, self.locate(path.removesuffix("."))))
            else:
                stages += [gated(templates[entry["template"]], entry.get("depth_gating"))] * entry["repeat"]
                first += entry["repeat"]
            places[path] = (before, first - 1)
        written: dict[str, str] = {}
        for path in self.reserved:
            # The innermost entry that a key stands in; places of streams come before that of their stage.
            place = next((place for place in places if path.startswith(place)), None)
            if place is not None:
                written[layers_path(*places[place], path.removeprefix(place))] = path
        unused = set(self.names) - self.used
        written.update(
            (path, path)
            for path in self.reserved
            if not path.startswith("layer_schedule[") and self._template_of(path) not in unused
        )
        return tuple(stages), {path: self.reserved[source] for path, source in written.items()}, written

    def _template_of(self, path: str) -> str | None:
        """The template that a path leads into. Names may hold dots, so the longest that fits is the one."""
        inside = path.removeprefix("layer_templates.")
        if inside == path:
            return None
        return max((name for name in self.names if inside.startswith(f"{name}.")), key=len, default=None)
