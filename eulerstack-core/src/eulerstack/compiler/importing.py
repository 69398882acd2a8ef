"""HuggingFace checkpoints of known families, to EulerStack and back.

`import_checkpoint` makes a spec from config.json and, unless only the spec is wanted, a model directory with the same
weights; `export_checkpoint` writes such a directory in the family's own form. Both stream: tensors go from safetensors
to safetensors one at a time, in the dtype that they have, by the one table that the family's `Importer` holds.

Errors: CompileError for directories and files, CompatibilityError for what one side can't say of the other.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack.compiler.checkpoints import (
    CONFIG,
    INDEX,
    SEE_DIRECTORY,
    SEE_WEIGHTS,
    SINGLE,
    Checkpoint,
    fail,
    read_config,
    read_json,
)
from eulerstack.compiler.conversion import DTYPES, HEAD, Conversion, plan, restore
from eulerstack.compiler.family import config_for
from eulerstack.compiler.spec_text import spec_text, without_defaults
from eulerstack.errors import CompatibilityError, Diagnostic, EulerStackError, Location, msg
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.plugins.manager import Registry, get_registry
from eulerstack.plugins.primitive import Importer

if TYPE_CHECKING:
    from eulerstack.ir.types import ModelIR

SEE_FAMILIES = "reference/import.md#families"
SEE_OUTPUT = "reference/import.md#the-output"
GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    GENERATION,
    "chat_template.jinja",
    "chat_template.json",
)


def import_checkpoint(source: str | Path, output: str | Path, spec_only: bool = False, force: bool = False) -> Path:
    """Imports the checkpoint in directory `source`; returns the directory or file written.

    With `spec_only` only the spec is written, to `output` where that names a .yml file, else to `output`/spec.yml, and
    no weights are needed. An existing file, or a directory that isn't empty, is refused without `force`.
    """
    source, output = Path(source), Path(output)
    config, text = read_config(source)
    registry = get_registry()
    importer = _importer_of(config, text, source / CONFIG, registry)
    spec = _spec_of(importer, config, text, source)
    ir = _ir_of(spec, source / CONFIG, registry)
    yaml = _yaml(spec, importer, registry)
    if spec_only:
        return _write_spec(yaml, output, force)
    from eulerstack.compiler.initial import build_on_meta
    from eulerstack.compiler.output import keep_input
    from eulerstack.compiler.writer import expected_weights, weight_dtypes, write_directory

    keep_input(output, source)
    with Checkpoint(source) as checkpoint:
        model = build_on_meta(ir)
        whole = [name for name, dtype in weight_dtypes(model).items() if dtype == "int64"]
        conversion = Conversion(checkpoint, importer, ir, expected_weights(model), whole)
        return write_directory(
            ir,
            output,
            iter(conversion),
            seed=None,
            force=force,
            spec_text=yaml,
            extra_files=_carried_files(source),
            special_tokens={key: config[key] for key in TOKEN_IDS if config.get(key) is not None},
            pad_learns=importer.pad_learns,
            dtypes={name: conversion.dtype(name) for name in conversion.shapes},
            source=f"imported from {importer.model_type}",
            model=model,
        )


def export_checkpoint(
    directory: str | Path, output: str | Path, family: str | None = None, force: bool = False
) -> Path:
    """Writes an EulerStack model directory as a checkpoint of a HuggingFace family; returns `output`.

    `family` is a model_type; None takes the first that can say all of the architecture, the model's family_hint before
    others. Errors: CompatibilityError when there is none, naming what it has no words for.
    """
    from eulerstack.compiler.output import keep_input, replacing_directory
    from eulerstack.compiler.weights import write_weights
    from eulerstack.ir.printer import from_data

    directory, output = Path(directory), Path(output)
    keep_input(output, directory)
    config, _ = read_config(directory)
    if config.get("model_type") != "eulerstack" or not isinstance(config.get("architecture"), Mapping):
        fail(
            directory / CONFIG,
            msg("is not that of an EulerStack model"),
            msg("give a directory that `eulerstack compile` or `eulerstack import` wrote"),
            SEE_DIRECTORY,
        )
    ir = from_data(_as_saved(config))
    importer, family_config = config_for(ir, _candidates(family, ir), directory / CONFIG)
    with Checkpoint(directory) as checkpoint, replacing_directory(output, force) as folder:
        shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
        if ir.embedding["tie_word_embeddings"]:
            shapes.pop(HEAD, None)
        pieces, uncovered = plan(importer.rules_for(ir), shapes)
        dtypes = {piece.there: {checkpoint.entries[name].dtype for name in piece.here} for piece in pieces}
        odd = [*uncovered, *(name for name, found in dtypes.items() if len(found) > 1 or not found <= set(DTYPES))]
        if odd:
            fail(
                directory,
                msg("holds weights that {family} can't hold: {name}", family=importer.architecture, name=odd[0]),
                msg("merge adapters into the weights first, and keep one dtype a layer"),
                SEE_WEIGHTS,
            )
        words = {
            "architectures": [importer.architecture],
            "model_type": importer.model_type,
            **family_config,
            **_special_tokens(config, directory),
        }
        (folder / CONFIG).write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
        for file in _carried_files(directory):
            shutil.copyfile(file, folder / file.name)
        write_weights(
            folder,
            ((piece.there, restore(checkpoint, piece)) for piece in pieces),
            {piece.there: piece.shape_there(shapes) for piece in pieces},
            {name: DTYPES[found.pop()] for name, found in dtypes.items()},
        )
    return output


def _special_tokens(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The special token ids of a model directory: config.json's, then generation_config.json's."""
    file = directory / GENERATION
    generation = read_json(file)[0] if file.is_file() else {}
    found = {key: config.get(key, generation.get(key)) for key in TOKEN_IDS}
    return {key: value for key, value in found.items() if value is not None}


def _as_saved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with what may have been changed since: a resized vocabulary, an untied head."""
    data = json.loads(json.dumps(config["architecture"]))
    data["model"]["vocab_size"] = config.get("vocab_size", data["model"]["vocab_size"])
    tied = config.get("tie_word_embeddings", data["embedding"]["tie_word_embeddings"])
    data["embedding"]["tie_word_embeddings"] = tied
    if "tie_weights" in data["head"]["params"]:
        data["head"]["params"]["tie_weights"] = tied
    return dict(data)


def _candidates(family: str | None, ir: ModelIR) -> list[Importer]:
    known = {importer.model_type: importer for importer in get_registry().importers()}
    if family is not None:
        if family not in known:
            raise CompatibilityError([_unknown_family(family, list(known), None)])
        return [known[family]]
    hint = ir.model["family_hint"]
    return sorted(known.values(), key=lambda importer: (importer.model_type != hint, importer.model_type))


def _importer_of(config: Mapping[str, Any], text: str, file: Path, registry: Registry) -> Importer:
    known = {importer.model_type: importer for importer in registry.importers()}
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in known:
        return known[model_type]
    place = _locate(text, file, "model_type")
    if model_type == "eulerstack":
        fail(
            file,
            msg("is that of an EulerStack model already; its spec is spec.yml beside it"),
            msg("use the directory as it is"),
            SEE_FAMILIES,
            place.line,
            place.column,
        )
    raise CompatibilityError([_unknown_family(model_type, list(known), place)])


def _unknown_family(model_type: Any, known: list[str], place: Location | None) -> Diagnostic:
    name, families = str(model_type)[:60], ", ".join(known)
    near = difflib.get_close_matches(name, known, n=1)
    if model_type is None:
        what = msg("there is no model_type, so the family is unknown; known: {families}", families=families)
    else:
        what = msg("no importer reads {name}; known: {families}", name=name, families=families)
    if near:
        fix = msg("did you mean {near}?", near=near[0])
    else:
        fix = msg("use a checkpoint of a known family, or install a plugin that imports this one")
    return Diagnostic("CompatibilityError", what, fix, SEE_FAMILIES, "model_type", place)


def _spec_of(importer: Importer, config: Mapping[str, Any], text: str, source: Path) -> dict[str, Any]:
    """The spec with every word stated, under the directory's name; a dtype that config.json lacks is the weights'."""
    file = source / CONFIG
    try:
        spec = importer.to_spec(config)
    except EulerStackError as error:
        places = [_locate(text, file, problem.path) for problem in error.diagnostics]
        located = sorted(zip(places, error.diagnostics, strict=True), key=lambda pair: (pair[0].line, pair[0].column))
        raise type(error)(replace(problem, location=place) for place, problem in located) from None
    spec["model"]["name"] = source.resolve().name[:200] or importer.model_type
    if "dtype" not in spec["model"]:
        hint = spec["model"].pop("family_hint", None)
        spec["model"].update(dtype=_dtype_of_weights(source), family_hint=hint)
    return spec


def _dtype_of_weights(source: Path) -> str:
    """The dtype that most weights have; transformers' own default where there are none."""
    if not any((source / name).is_file() for name in (SINGLE, INDEX)):
        return "float32"
    with Checkpoint(source) as checkpoint:
        return DTYPES.get(checkpoint.dtype() or "", "float32")


def _locate(text: str, file: Path, path: str) -> Location:
    """Where config.json's text first has the last key of `path`; the top of the file where it has none."""
    for key in reversed(re.split(r"\.|\[\d+\]", path)):
        match = re.search(rf'"{re.escape(key)}"\s*:', text) if key else None
        if match:
            before = text[: match.start()]
            return Location(str(file), before.count("\n") + 1, match.start() - before.rfind("\n"))
    return Location(str(file), 1, 1)


def _ir_of(spec: Mapping[str, Any], file: Path, registry: Registry) -> ModelIR:
    """The IR of an imported spec; what the language refuses is reported of config.json, which is what the user has."""
    try:
        return normalize_to_ir(spec, registry)
    except EulerStackError as error:
        raise CompatibilityError(
            Diagnostic(
                "CompatibilityError",
                msg("the spec made from config.json is refused: {what}", what=problem.what),
                problem.fix,
                problem.see,
                problem.path,
                Location(str(file), 1, 1),
            )
            for problem in error.diagnostics
        ) from error


def _yaml(spec: Mapping[str, Any], importer: Importer, registry: Registry) -> str:
    from eulerstack.schema.assemble import assemble

    blocks = {
        f"{primitive.kind}.{primitive.name}": {**(primitive.schema or {}).get("properties", {}), **primitive.inline}
        for primitive in registry.primitives()
    }
    comment = f"Imported from a HuggingFace checkpoint of model_type {importer.model_type} ({importer.architecture})."
    return spec_text(without_defaults(spec, assemble(registry), blocks), comment)


def _write_spec(yaml: str, output: Path, force: bool) -> Path:
    """Writes the spec atomically."""
    file = output if output.suffix in (".yml", ".yaml") and not output.is_dir() else output / "spec.yml"
    if file.exists() and not force:
        fail(
            file,
            msg("exists already"),
            msg("choose another output, or add --force to replace it"),
            SEE_OUTPUT,
        )
    temporary = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(yaml, encoding="utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        fail(
            file,
            msg("can't be written: {reason}", reason=error.strerror or str(error)),
            msg("choose an output that is writable"),
            SEE_OUTPUT,
        )
    return file


def _carried_files(directory: Path) -> list[Path]:
    return [directory / name for name in CARRIED if (directory / name).is_file()]
