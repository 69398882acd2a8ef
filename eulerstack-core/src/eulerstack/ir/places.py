"""Where the layers of a model and their parts are, by the names of their modules."""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.ir.types import LayerIR, ModelIR, ParallelIR, PrimitiveIR
from eulerstack.plugins.manager import Registry
from eulerstack.plugins.primitive import Kind


def places_of_layers(ir: ModelIR) -> Iterator[tuple[str, LayerIR]]:
    """Every layer with the name of its module in the stack, in the order of `ir.layers`."""
    for index, stage in enumerate(ir.stages):
        if isinstance(stage, LayerIR):
            yield f"layers.{index}", stage
        elif isinstance(stage, ParallelIR):
            for number, stream in enumerate(stage.streams):
                for place, layer in enumerate(stream.layers):
                    yield f"layers.{index}.streams.{number}.layers.{place}", layer
        else:
            yield from ((f"layers.{index}.layers.{place}", layer) for place, layer in enumerate(stage.layers))


def modules_of(registry: Registry, layer: LayerIR) -> Iterator[tuple[Kind, str, PrimitiveIR]]:
    """(kind, submodule, node) of a layer's mixer, of the mixers that it holds, and of its feed-forward block."""
    yield "mixer", "mixer", layer.mixer
    if (holds := registry.get("mixer", layer.mixer.type).holds) is not None:
        for name, node in layer.mixer.held.items():
            yield "mixer", f"mixer.{holds.submodule.format(name=name)}", node
    yield "ffn", "ffn", layer.ffn
