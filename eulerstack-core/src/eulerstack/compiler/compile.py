"""From an IR to its artifacts: a JSON config, a model in memory, a directory.

`compile_ir` is torch-free. The other two give the same numbers for the same seed; see `initial.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack.compiler.declared import architecture_of, cache_of_merge, features_of, is_cached, slots_in, variant_of
from eulerstack.compiler.extensions import compiled_extensions
from eulerstack.compiler.targets import write_target
from eulerstack.compiler.tissue import tissue_map
from eulerstack.hf.ecosystem import AUTO_MAP, ecosystem_fields
from eulerstack.hf.slots import projection_slots
from eulerstack.ir.dims import dims_of, layer_dims
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.places import modules_of, places_of_layers
from eulerstack.ir.printer import print_ir
from eulerstack.ir.types import IntegratorIR, LayerIR, ModelIR, ParallelIR, PrimitiveIR
from eulerstack.plugins.asking import ask
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import CacheLayer, Kind, Params, Primitive

if TYPE_CHECKING:
    from eulerstack.hf.models import EulerStackForCausalLM

FORMAT_VERSION = 1


def compile_ir(ir: ModelIR) -> dict[str, Any]:
    """The content of `config.json`: the architecture and the names that the ecosystem reads.

    It describes the HuggingFace model, whatever the spec's `compile_target`. Errors: CompileError for a value that the
    handler of its reserved namespace refuses.
    """
    architecture = architecture_of(ir)
    slots = list(_slots_of(ir))
    caches = [cache for cache, _ in slots]
    gated = [own for _, own in slots]
    windows = [cache.window for cache, own in zip(caches, gated, strict=True) if cache.window is not None and not own]
    # transformers knows one window a model; the most frequent one gets its name.
    sliding_window = max(sorted(set(windows)), key=windows.count) if windows else None
    if ir.head_layer is not None:
        of_head = _caches_of(ir.head_layer)
        architecture["head"]["layer_types"] = [_layer_type(cache, sliding_window, False) for cache in of_head]
    return {
        "model_type": "eulerstack",
        "architectures": ["EulerStackForCausalLM"],
        "auto_map": dict(AUTO_MAP),
        "dtype": ir.model["dtype"],
        **ecosystem_fields(architecture),
        "layer_types": [_layer_type(cache, sliding_window, own) for cache, own in zip(caches, gated, strict=True)],
        "sliding_window": sliding_window,
        "tensor_parallel_plan": tensor_parallel_plan(ir),
        "use_cache": all(is_cached(get_registry(), stage) for stage in ir.stages),
        "tissue": tissue_map(ir),
        "v1_extensions": {**compiled_extensions(ir), **phases_of(architecture)},
        "architecture": architecture,
    }


def phases_of(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The phases of a generation and what ends one, where there are any, as `v1_extensions` repeats them."""
    return {word: architecture[word] for word in ("execution_modes", "transition") if word in architecture}


def _slots_of(ir: ModelIR) -> Iterator[tuple[CacheLayer, bool]]:
    """Every cache slot in order, and whether it keeps only what a depth gate lets through."""
    registry = get_registry()
    for stage in ir.stages:
        for layer in stage.layers:
            # A memory is given the tokens that its layer processes, and keeps nothing of the others; so are
            # convolutions that change the width.
            gated = len(layer.slot_mixers) if layer.depth_gating is not None else 0
            caches = [(cache, place < gated) for place, cache in enumerate(_caches_of(layer))]
            for _ in range(slots_in(registry, stage)):
                yield from caches
        if isinstance(stage, ParallelIR) and (cache := cache_of_merge(registry, stage)) is not None:
            yield cache, False


def _caches_of(layer: LayerIR) -> Iterator[CacheLayer]:
    """The layer's cache slots, in their order: its mixers', that of a memory that reading changes, that of convolutions
    which change its width."""
    yield from (_cache_of("mixer", node) for node in layer.slot_mixers)
    if layer.memory is not None and layer.memory.params["update_at_inference"]:
        yield _cache_of("memory", layer.memory)
    yield from [CacheLayer("eulerstack_state")] * projection_slots(layer.shape_change)


def _cache_of(kind: Kind, node: PrimitiveIR) -> CacheLayer:
    """The cache slot of a mixer that holds no others, or of a memory."""
    registry = get_registry()
    primitive = registry.get(kind, node.type)
    return ask(registry, primitive, CacheLayer, primitive.cache, node.params)


def _layer_type(cache: CacheLayer, sliding_window: int | None, gated: bool) -> str:
    """The type of a cache slot. One that a gated layer owns always names its window."""
    name = cache.layer_type
    if name == "sliding_attention" and (gated or cache.window != sliding_window):
        name = f"eulerstack_sliding_{cache.window}"
    return f"eulerstack_gated_{name}" if gated else name


def tensor_parallel_plan(ir: ModelIR) -> dict[str, str]:
    """transformers' tensor-parallel plan: what every layer's primitives allow to be split.

    A bias per head is computed for all heads at once, so attention then stays whole; so does a part with a linear layer
    that is no matrix.
    """
    whole = {each.module.rpartition(".")[0] for each in replaced_linears(ir)}
    biased = get_registry().get("position", ir.position.type).place == "scores"
    plans: list[tuple[str, dict[str, str]]] = []
    for place, layer in places_of_layers(ir):
        plan: dict[str, str] = {}
        for kind, part, node in modules_of(get_registry(), layer):
            declaration = get_registry().get(kind, node.type)
            if declaration.tensor_parallel is None or (kind == "mixer" and biased) or f"{place}.{part}" in whole:
                continue
            styles = ask(get_registry(), declaration, dict, _styles, declaration, node.params)
            plan |= {f"{part}.{name}": style for name, style in styles.items()}
        plans.append((place, plan))
    if all(plan == plans[0][1] for _, plan in plans):
        plans = [(re.sub(r"\d+", "*", place), plan) for place, plan in plans]
    return {f"{place}.{name}": style for place, plan in plans for name, style in plan.items()}


def _styles(declaration: Primitive, params: Params) -> dict[str, str]:
    return {} if declaration.tensor_parallel is None else dict(declaration.tensor_parallel(params))


def nodes_of(ir: ModelIR) -> Iterator[tuple[str, str, Params]]:
    """(kind, type, params) of every primitive that a model is built from, repetitions included."""
    registry = get_registry()
    if registry.get("position", ir.position.type).place != "mixers":
        yield "position", ir.position.type, ir.position.params
    yield "head", ir.head.type, ir.head.params
    if ir.final_norm is not None:
        yield "norm", ir.final_norm.type, ir.final_norm.params
    for stage in ir.stages:
        if isinstance(stage, IntegratorIR):
            yield "integrator", stage.integrator.type, stage.integrator.params
        elif isinstance(stage, ParallelIR):
            yield "merge", stage.merge.type, stage.merge.params
            merge = registry.get("merge", stage.merge.type)
            rotation = features_of(registry, dims_of(ir), merge, stage.merge_params).rotation
            if rotation is not None:
                yield "position", rotation.position, rotation.params
    own = () if ir.head_layer is None else (ir.head_layer,)
    for layer in dict.fromkeys((*ir.layers, *own)):
        for node in dict.fromkeys((layer.mixer, *layer.slot_mixers)):
            yield "mixer", node.type, node.params
        if not registry.get("ffn", layer.ffn.type).absent:
            yield "ffn", layer.ffn.type, layer.ffn.params
        yield "norm", layer.norm.type, layer.norm.params
        yield "residual", layer.residual.type, layer.residual.params
        if layer.memory is not None:
            yield "memory", layer.memory.type, layer.memory.params
        for node in layer.slot_mixers:
            rotation = features_of(
                registry, layer_dims(ir, layer), registry.get("mixer", node.type), node.params
            ).rotation
            if rotation is not None:
                yield "position", rotation.position, rotation.params
    for each in replaced_linears(ir):
        yield "linear", each.node.type, each.node.params


def used_primitives(ir: ModelIR) -> list[Primitive]:
    """The primitives that a model needs, each once."""
    return [get_registry().get(kind, name) for kind, name in sorted({(kind, name) for kind, name, _ in nodes_of(ir)})]


def used_classes(ir: ModelIR) -> dict[tuple[str, str, str], str]:
    """The "package.module:Class" by (kind, type, variant) of everything that a model is built from."""
    classes, registry = {}, get_registry()
    for kind, name, params in nodes_of(ir):
        primitive = registry.get(kind, name)
        path = ask(registry, primitive, str, primitive.class_path, params)
        classes[kind, name, variant_of(registry, primitive, params)] = path
    return classes


def words_of(ir: ModelIR) -> frozenset[str]:
    """The words by which a model's code is chosen from tables: each that the spec says, and its layers' cache types.

    A word of the language counts where its value is not null, false or 0; a value counts where it is a text.
    """
    config = compile_ir(ir)
    architecture = config["architecture"]
    parts = [architecture[part] for part in ("embedding", "position", "blocks", "layers", "final_norm", "head")]
    objectives = architecture["training_hints"]["differentiation_objectives"]
    linears = ["linears"] if "linears" in architecture else []
    return frozenset(_words([*parts, config["layer_types"], list(phases_of(architecture)), objectives, linears]))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (key for key, item in value.items() if item)
        yield from _words(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)


def compile_to_hf_model(ir: ModelIR, seed: int | None = None) -> EulerStackForCausalLM:
    """The model in memory, in its declared dtype, on the CPU.

    The same numbers as the target `huggingface` writes for the same seed, whatever the spec's `compile_target`; `seed`
    None takes the spec's.
    """
    from eulerstack.compiler.initial import build_on_meta, initialise_module
    from eulerstack.compiler.streams import new_scratch

    model, scratch = build_on_meta(ir), new_scratch()
    for name, module in list(model.named_modules()):
        initialise_module(model, name, module, resolve_seed(ir, seed), ir.model["dtype"], scratch)
    model.tie_weights()
    return model.eval()


def compile_to_directory(
    ir: ModelIR,
    output_dir: str | Path,
    seed: int | None = None,
    force: bool = False,
    spec_text: str | None = None,
    spec_dir: Path | None = None,
    max_shard_bytes: int | None = None,
) -> Path:
    """Writes what the spec's `compile_target` makes of `ir`, and returns the directory.

    The target `huggingface` makes a model directory that loads where eulerstack is not installed. `spec_text` is the
    source, kept as `spec.yml` there (default: the IR printed); names of tokenizer files are looked up from `spec_dir`.
    `max_shard_bytes`, for that target alone, splits weights of more bytes into files of at most that many, but for a
    tensor that alone has more (default 5·10⁹).
    Errors: CompileError when the output can't be written, exists and is not empty and `force` is false, or when the
    target fails.
    """
    text = print_ir(ir) if spec_text is None else spec_text
    chosen = resolve_seed(ir, seed)
    own = {} if max_shard_bytes is None else {"max_shard_bytes": max_shard_bytes}
    return write_target(ir, Path(output_dir), seed=chosen, spec_text=text, spec_dir=spec_dir, force=force, **own)


def resolve_seed(ir: ModelIR, seed: int | None) -> int:
    """The seed given, or else the spec's."""
    return int(ir.training_hints["seed"]) if seed is None else seed
