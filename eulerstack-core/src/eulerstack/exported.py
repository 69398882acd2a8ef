"""The spec of a compiled directory: the way back from what `compile` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from eulerstack.compiler.checkpoints import CONFIG, fail, read_config
from eulerstack.dsl.source import load_source, parse_text
from eulerstack.errors import EulerStackError, msg
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.printer import from_data, print_ir
from eulerstack.ir.types import FrozenMapping, ModelIR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eulerstack.dsl.source import Spec

SPEC_FILE = "spec.yml"
SEE = "reference/cli.md#export-spec"
# What reading an architecture that was changed by hand may stumble over.
DAMAGED = (KeyError, TypeError, IndexError, AttributeError, ValueError)


def is_compiled(path: Path) -> bool:
    """Whether `path` looks like a model directory."""
    return os.path.isfile(path / CONFIG)


def export_spec(directory: str | Path, assignments: Sequence[str] = ()) -> Spec:
    """The spec that a compiled directory's model has, with `assignments` on top.

    It is the directory's own `spec.yml`, letter for letter, as long as that says what config.json says, by which the
    model is built. Where it doesn't, or there is none, it is config.json's architecture in canonical form; a vocabulary
    that was resized and a head that was untied since then are in it.

    Errors: CompileError for what is no directory of a compiled model; the diagnostics of a spec that nobody could have
    compiled, when config.json was changed by hand.
    """
    folder = Path(directory)
    ir = _architecture(folder)
    file = folder / SPEC_FILE
    if file.is_file():
        try:
            spec = load_source(file)
            if normalize_to_ir(spec) == ir:
                return load_source(file, assignments) if assignments else spec
        except EulerStackError:
            # Then config.json alone says what the model is.
            pass
    try:
        text = print_ir(ir)
    except DAMAGED:
        _refuse(folder)
    spec = parse_text(text, str(file), assignments)
    normalize_to_ir(spec)
    return spec


def _architecture(folder: Path) -> ModelIR:
    """The IR in config.json, with what may have changed since the model was compiled."""
    config, _ = read_config(folder)
    architecture = config.get("architecture")
    if config.get("model_type") != "eulerstack" or not isinstance(architecture, Mapping):
        fail(
            folder / CONFIG,
            msg("describes no model that EulerStack compiled"),
            msg("eulerstack import {directory} --output-dir {output}", directory=str(folder), output="./imported"),
            SEE,
        )
    try:
        ir = from_data(architecture)
        tied = config.get("tie_word_embeddings", ir.embedding["tie_word_embeddings"])
        model = {**ir.model, "vocab_size": config.get("vocab_size", ir.model["vocab_size"])}
        ir = replace(
            ir,
            model=FrozenMapping(model),
            embedding=FrozenMapping({**ir.embedding, "tie_word_embeddings": tied}),
            head=replace(ir.head, params=_tied(ir.head.params, tied)),
        )
        # What is frozen has a hash; a mapping or list in the place of a word has none.
        hash(ir)
        return ir
    except DAMAGED:
        _refuse(folder)


def _refuse(folder: Path) -> NoReturn:
    fail(
        folder / CONFIG,
        msg("holds an architecture that this version can't read"),
        msg("compile its {name} again", name=SPEC_FILE),
        SEE,
    )


def _tied(params: Mapping[str, Any], tied: bool) -> FrozenMapping:
    return FrozenMapping({**params, "tie_weights": tied} if "tie_weights" in params else params)
