"""Which HuggingFace family can say what an IR says, and its config.json.

An importer's `to_config` is only a proposal: it is read back by the same importer's `to_spec`, and the family is taken
when the IR that results has the same meaning. So no family has to list what it can't say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack.compiler.spec_text import flow
from eulerstack.errors import CompatibilityError, Diagnostic, EulerStackError, Location, Message, msg
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.types import thaw
from eulerstack.plugins.primitive import Importer

if TYPE_CHECKING:
    from eulerstack.ir.types import ModelIR

SEE = "reference/import.md#back-to-huggingface"
_NAMES_ONLY = frozenset({"name", "family_hint", "target_params"})
_SHOWN = 5


def config_for(ir: ModelIR, candidates: Sequence[Importer], file: Path) -> tuple[Importer, dict[str, Any]]:
    """The first importer that can say all of `ir`, and its config.json.

    Raises CompatibilityError, located in `file`, with what the nearest family has no words for.
    """
    nearest: tuple[Importer, list[tuple[str, Any]]] | None = None
    for importer in candidates:
        config = importer.to_config(ir)
        differences = list(_differences(importer, ir, config))
        if not differences:
            return importer, config
        if nearest is None or len(differences) < len(nearest[1]):
            nearest = importer, differences
    if nearest is None:
        what, fix = msg("no importer is installed"), msg("pip install eulerstack-mixers")
        raise CompatibilityError([Diagnostic("CompatibilityError", what, fix, SEE)])
    importer, differences = nearest
    family = importer.architecture
    fix = msg("use the EulerStack directory itself, or change the spec to what {family} does", family=family)
    raise CompatibilityError(
        Diagnostic(
            "CompatibilityError",
            msg("{family} has no words for this: {value}", family=family, value=_shown(value)),
            fix,
            SEE,
            path,
            Location(str(file), 1, 1),
        )
        for path, value in differences[:_SHOWN]
    )


def _shown(value: Any) -> Any:
    """A value as a spec writes it; a message as it is."""
    return value if isinstance(value, Message) else flow(value)


def _differences(importer: Importer, ir: ModelIR, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of every word of `ir` that the family's config does not give back."""
    try:
        spec = importer.to_spec(config)
        spec["model"].setdefault("dtype", ir.model["dtype"])
        back = normalize_to_ir(spec)
    except EulerStackError as error:
        yield from ((problem.path, problem.what) for problem in error.diagnostics)
        return
    ours, theirs = dict(_flat("", _meaning(ir, importer))), dict(_flat("", _meaning(back, importer)))
    seen = set()
    for path, value in {**theirs, **ours}.items():
        if path in ours and path in theirs and ours[path] == theirs[path]:
            continue
        # what several layers say is reported of the first
        word = path.partition("].")[2] or path
        if word not in seen:
            seen.add(word)
            yield path, value


def _meaning(ir: ModelIR, importer: Importer) -> dict[str, Any]:
    """What decides the function that a model computes, without names."""
    dims = {"head_dim": ir.model["head_dim"]}
    return {
        "model": {key: value for key, value in ir.model.items() if key not in _NAMES_ONLY},
        "embedding": {**thaw(ir.embedding), "positional": ir.position.type, **thaw(ir.position.params)},
        "layers": [
            importer.canonical(
                {
                    "dims": dims,
                    "mixer": {"type": layer.mixer.type, **layer.mixer.params},
                    "ffn": {"type": layer.ffn.type, **layer.ffn.params},
                    "norm": {"type": layer.norm.type, "position": layer.norm.position, **layer.norm.params},
                    "residual": {"type": layer.residual.type, **layer.residual.params},
                    **({} if layer.memory is None else {"memory": {"type": layer.memory.type, **layer.memory.params}}),
                }
            )
            for layer in ir.layers
        ],
        "stages": [stage.word for stage in ir.stages if stage.word],
        "head": {"type": ir.head.type, **ir.head.params},
        "training_hints": {"dropout": ir.training_hints["dropout"], "scaling": thaw(ir.training_hints["scaling"])},
        "extensions": thaw(ir.extensions),
    }


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value):
            yield from _flat(f"{path}[{index}]", item)
    else:
        yield path, value
