"""Fills a HuggingFace model directory.

Weights are written one tensor after another, so memory holds the largest module and not the model.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack import __version__
from eulerstack.compiler.bundle import bundle
from eulerstack.compiler.compile import (
    FORMAT_VERSION,
    compile_ir,
    used_classes,
    used_primitives,
    words_of,
)
from eulerstack.compiler.digests import sha256
from eulerstack.compiler.initial import build_on_meta, iter_initial
from eulerstack.compiler.output import replacing_directory
from eulerstack.compiler.promises import check_parameters, named_if_missing
from eulerstack.compiler.tokenizer import copy_tokenizer
from eulerstack.compiler.weights import MAX_SHARD_BYTES, write_weights
from eulerstack.ir.printer import print_ir
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry

if TYPE_CHECKING:
    import torch

    from eulerstack.hf.models import EulerStackForCausalLM

HEADER = """\
{name}: a language model described by an EulerStack spec.

Written by EulerStack {version} from `spec.yml` in this directory; it needs torch and transformers only. To change the
architecture, change the spec and compile it again.
"""

CONFIGURATION_FILE = '''\
"""The configuration class, which lives beside the model in `modeling_eulerstack.py`."""

from .modeling_eulerstack import EulerStackConfig

__all__ = ["EulerStackConfig"]
'''


def write_huggingface(
    ir: ModelIR,
    folder: Path,
    *,
    seed: int,
    spec_text: str,
    spec_dir: Path | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """The target `huggingface`: a model directory with random weights. Its contract is `Target`'s."""
    with named_if_missing(ir):
        model = build_on_meta(ir)
    weights = iter_initial(model, seed, ir.model["dtype"])
    words: dict[str, Any] = {"seed": seed, "spec_text": spec_text, "spec_dir": spec_dir}
    fill_directory(ir, folder, weights, model=model, max_shard_bytes=max_shard_bytes, **words)


def write_directory(
    ir: ModelIR, output_dir: Path, tensors: Iterable[tuple[str, torch.Tensor]], *, force: bool = False, **words: Any
) -> Path:
    """Writes `tensors` and everything that makes them a model, whole or not at all; returns the directory.

    `words` are those of `fill_directory`. Errors: its own, and CompileError when `output_dir` exists without `force` or
    can't be written.
    """
    with replacing_directory(output_dir, force) as folder:
        fill_directory(ir, folder, tensors, **words)
    return output_dir


def fill_directory(
    ir: ModelIR,
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    seed: int | None,
    spec_text: str | None = None,
    spec_dir: Path | None = None,
    extra_files: Iterable[Path] = (),
    special_tokens: Mapping[str, Any] | None = None,
    pad_learns: bool = False,
    dtypes: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    source: str = "random initialisation",
    model: EulerStackForCausalLM | None = None,
) -> None:
    """Writes `tensors` and everything that makes them a model into the empty directory `folder`.

    `tensors` must give every stored weight of the model, each once, in any order, in its final dtype: the spec's, or
    for weights that come from elsewhere the one that `dtypes` says. `extra_files` are copied as they are and win over
    generated ones (an imported tokenizer, a generation config); `special_tokens` are config words such as eos_token_id.
    With `pad_learns` the pad token is named to `generate` alone, because in config.json it would exempt its embedding
    from training. Weights of more than `max_shard_bytes` are split into several files. `model` is the model on meta,
    where the caller has built it.
    Errors: CompileError when a tensor is missing or misshapen, or the pad token has no embedding; CompatibilityError
    when a third party's class is not there, or the model has other parameters than a third party's price says.
    """
    config = compile_ir(ir)
    extra = list(extra_files)
    for file in extra:
        shutil.copyfile(file, folder / file.name)
    if not any(file.name.startswith("tokenizer") for file in extra):
        config.update(copy_tokenizer(ir, folder, spec_dir))
    config.update(special_tokens or {})
    if not (folder / "generation_config.json").exists():
        _write_json(folder / "generation_config.json", generation_config(config))
    if pad_learns:
        config.pop("pad_token_id", None)
    _write_json(folder / "config.json", {**config, "transformers_version": version("transformers")})
    write_source(ir, folder)
    model = model or build_on_meta(ir)
    check_parameters(ir, model)
    (folder / "spec.yml").write_text(print_ir(ir) if spec_text is None else spec_text, encoding="utf-8")
    digests = write_weights(folder, tensors, expected_weights(model), dtypes or weight_dtypes(model), max_shard_bytes)
    _write_json(
        folder / "provenance.json",
        {
            "format_version": FORMAT_VERSION,
            "weights": source,
            "seed": seed,
            **origins(ir),
            "sha256": {file.name: digests.get(file.name) or sha256(file) for file in sorted(folder.iterdir())},
        },
    )


def origins(ir: ModelIR) -> dict[str, dict[str, str | None]]:
    """The versions of everything that a model directory is made by."""
    plugins = sorted({get_registry().origin(primitive) for primitive in used_primitives(ir)})
    libraries = {name: version_of(name) for name in ("torch", "transformers", "safetensors")}
    return {"versions": {"eulerstack": __version__, **libraries}, "plugins": dict(plugins)}


def write_origin(ir: ModelIR, folder: Path) -> None:
    """The spec and the provenance of a model that was built in memory: of its weights no more is known."""
    (folder / "spec.yml").write_text(print_ir(ir), encoding="utf-8")
    provenance = {"format_version": FORMAT_VERSION, "saved_by": "save_pretrained", **origins(ir)}
    _write_json(folder / "provenance.json", provenance)


def write_source(ir: ModelIR, folder: Path) -> None:
    """Writes the two Python files that the auto classes load."""
    (folder / "modeling_eulerstack.py").write_text(model_source(ir), encoding="utf-8")
    (folder / "configuration_eulerstack.py").write_text(CONFIGURATION_FILE, encoding="utf-8")


def model_source(ir: ModelIR) -> str:
    """The text of `modeling_eulerstack.py`."""
    # The name goes into Python source: only characters that can't end or escape a docstring.
    name = re.sub(r"[^\w .,:;()+-]", "_", ir.model["name"])
    header = HEADER.format(name=name, version=__version__)
    packages = {primitive.module.partition(".")[0] for primitive in get_registry().primitives() if primitive.module}
    with named_if_missing(ir):
        return bundle(used_classes(ir), words_of(ir), header, packages)


def version_of(distribution: str) -> str | None:
    """An installed distribution's version."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def generation_config(config: dict[str, Any]) -> dict[str, Any]:
    """What `generate` starts from: the special tokens, and whether there is a cache."""
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    # What decodes without a cache must say so here, too: generate asks this file.
    cache = {} if config["use_cache"] else {"use_cache": False}
    return {"_from_model_config": True, **ids, **cache, "transformers_version": version("transformers")}


def expected_weights(model: EulerStackForCausalLM) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored weight of a model, which may be on meta; tied ones once."""
    tied = set(model.all_tied_weights_keys)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def weight_dtypes(model: EulerStackForCausalLM) -> dict[str, str]:
    """The declared dtype of every stored weight of a model, which may be on meta."""
    from eulerstack.hf.roles import safe_parameters

    architecture = model.config.architecture
    safe = {
        f"{prefix}.{name}" for prefix, module in model.named_modules() for name in safe_parameters(module, architecture)
    }
    # A buffer's own type is part of what it is: tables of whole numbers, sums of small steps.
    own = {name: str(buffer.dtype).removeprefix("torch.") for name, buffer in model.named_buffers()}
    declared = architecture["model"]["dtype"]
    return {name: "float32" if name in safe else own.get(name, declared) for name in expected_weights(model)}


def _write_json(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
