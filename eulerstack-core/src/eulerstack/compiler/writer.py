"""Writes a model directory: whole, or not at all.

Everything goes into a temporary directory beside the target, which is renamed at the end. Weights are written one
tensor after another, so memory holds the largest module and not the model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack import __version__
from eulerstack.compiler.bundle import bundle
from eulerstack.compiler.compile import (
    FORMAT_VERSION,
    build_on_meta,
    compile_ir,
    used_classes,
    used_primitives,
    words_of,
)
from eulerstack.compiler.tokenizer import copy_tokenizer
from eulerstack.compiler.weights import write_weights
from eulerstack.errors import CompileError, Diagnostic, msg
from eulerstack.ir.printer import print_ir
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry

if TYPE_CHECKING:
    import torch

SEE = "reference/errors.md#output"

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


def write_directory(
    ir: ModelIR,
    output_dir: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    seed: int | None,
    force: bool = False,
    spec_text: str | None = None,
    spec_dir: Path | None = None,
    extra_files: Iterable[Path] = (),
    special_tokens: Mapping[str, Any] | None = None,
    pad_learns: bool = False,
    dtypes: Mapping[str, str] | None = None,
    source: str = "random initialisation",
) -> Path:
    """Writes `tensors` and everything that makes them a model; returns the directory.

    `tensors` must give every stored weight of the model, each once, in any order, in its final dtype: the spec's, or
    for weights that come from elsewhere the one that `dtypes` says. `extra_files` are copied as they are and win over
    generated ones (an imported tokenizer, a generation config); `special_tokens` are config words such as eos_token_id.
    With `pad_learns` the pad token is named to `generate` alone, because in config.json it would exempt its embedding
    from training.
    Errors: CompileError when the target exists without `force`, can't be written, or a tensor is missing or misshapen.
    """
    with replacing_directory(output_dir, force) as folder:
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
        (folder / "spec.yml").write_text(print_ir(ir) if spec_text is None else spec_text, encoding="utf-8")
        write_weights(folder, tensors, expected_weights(ir), dtypes or ir.model["dtype"])
        origins = sorted({get_registry().origin(primitive) for primitive in used_primitives(ir)})
        _write_json(
            folder / "provenance.json",
            {
                "format_version": FORMAT_VERSION,
                "weights": source,
                "seed": seed,
                "versions": {
                    "eulerstack": __version__,
                    **{name: version_of(name) for name in ("torch", "transformers", "safetensors")},
                },
                "plugins": dict(origins),
                "sha256": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
            },
        )
    return output_dir


def write_source(ir: ModelIR, folder: Path) -> None:
    """Writes the two Python files that the auto classes load."""
    # The name goes into Python source: only characters that can't end or escape a docstring.
    name = re.sub(r"[^\w .,:;()+-]", "_", ir.model["name"])
    header = HEADER.format(name=name, version=__version__)
    (folder / "modeling_eulerstack.py").write_text(bundle(used_classes(ir), words_of(ir), header), encoding="utf-8")
    (folder / "configuration_eulerstack.py").write_text(CONFIGURATION_FILE, encoding="utf-8")


def version_of(distribution: str) -> str | None:
    """An installed distribution's version."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def generation_config(config: dict[str, Any]) -> dict[str, Any]:
    """What `generate` starts from: the special tokens."""
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    return {"_from_model_config": True, **ids, "transformers_version": version("transformers")}


@contextmanager
def replacing_directory(target: Path, force: bool) -> Iterator[Path]:
    """A temporary sibling of `target` that takes its place when the block ends well, and vanishes when it doesn't."""
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_dir():
        raise _refused(
            msg("{path} exists and is no directory", path=str(target)), msg("choose another output directory")
        )
    if target.is_dir() and any(target.iterdir()) and not force:
        raise _refused(
            msg("{path} exists and is not empty", path=str(target)),
            msg("choose another output directory, or add --force to replace it"),
        )
    here = Path.cwd()
    if target in (here, *here.parents, Path.home()):
        raise _refused(
            msg("{path} is the working directory, one above it, or your home", path=str(target)),
            msg("name a directory of its own, such as {path}", path=str(here / "my_model")),
        )
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", suffix=".partial", dir=target.parent))
        yield temporary
        _swap(temporary, target)
    except OSError as error:
        raise _refused(
            msg("{path} can't be written: {reason}", path=str(target), reason=error.strerror or str(error)),
            msg("choose an output directory that is writable and has room"),
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    os.chmod(temporary, 0o777 & ~_umask())
    if not target.exists():
        temporary.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", suffix=".old", dir=target.parent)) / target.name
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def expected_weights(ir: ModelIR) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored weight; tied ones once."""
    model = build_on_meta(ir)
    tied = set(model.all_tied_weights_keys)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def _write_json(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refused(what: Any, fix: Any) -> CompileError:
    return CompileError([Diagnostic("CompileError", what, fix, SEE)])
