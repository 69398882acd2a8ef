"""Reading a model directory's config.json and safetensors: headers at once and without torch, tensors one at a time.

Every fault of the directory is a CompileError that names the file: a missing or broken config.json, a shard that the
index names but that isn't there, a truncated file, weights in a pickle.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from eulerstack.errors import CompileError, Diagnostic, Location, Message, msg

if TYPE_CHECKING:
    import torch

SEE_DIRECTORY = "reference/import.md#the-source-directory"
SEE_WEIGHTS = "reference/import.md#weights"
CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_MAX_HEADER_BYTES = 100_000_000


def fail(file: Path | str, what: Message, fix: Message, see: str, line: int = 1, column: int = 1) -> NoReturn:
    """Raises a CompileError at a place in `file`."""
    raise CompileError([Diagnostic("CompileError", what, fix, see, location=Location(str(file), line, column))])


def read_json(path: Path, see: str = SEE_DIRECTORY) -> tuple[dict[str, Any], str]:
    """A JSON object and its text. Raises CompileError, located, for anything else."""
    fix = msg("download {name} again, or write it again with save_pretrained", name=path.name)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        data = json.loads(text, parse_constant=_no_constant)
    except OSError as error:
        fail(path, msg("can't be read: {reason}", reason=error.strerror or str(error)), fix, see)
    except UnicodeDecodeError:
        fail(path, msg("is not UTF-8 text"), fix, see)
    except json.JSONDecodeError as error:
        fail(path, msg("is not JSON: {reason}", reason=error.msg), fix, see, error.lineno, error.colno)
    except _NotFinite as error:
        fail(path, msg("holds {name}, which is no JSON number", name=str(error)), fix, see)
    except (ValueError, RecursionError) as error:
        fail(path, msg("is not JSON: {reason}", reason=str(error).splitlines()[0]), fix, see)
    if not isinstance(data, dict):
        fail(path, msg("holds no mapping of keys to values"), fix, see)
    return data, text


class _NotFinite(ValueError):
    """NaN or an infinity, which Python's reader would let pass."""


def _no_constant(name: str) -> NoReturn:
    raise _NotFinite(name)


def read_config(directory: Path) -> tuple[dict[str, Any], str]:
    """config.json of a model directory and its text. Raises CompileError when there is none."""
    if not directory.is_dir():
        fail(
            directory,
            msg("is not a directory"),
            msg("give the folder of a downloaded model, such as `hf download NAME --local-dir DIR` makes"),
            SEE_DIRECTORY,
        )
    if not os.path.isfile(directory / CONFIG):
        fail(
            directory,
            msg("has no config.json"),
            msg("give the folder that save_pretrained wrote, with config.json and model.safetensors in it"),
            SEE_DIRECTORY,
        )
    return read_json(directory / CONFIG)


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: its file, safetensors dtype ("F32") and shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """The safetensors of a directory. `entries` holds every tensor's header; a context manager, closed after use.

    Errors: CompileError for missing, truncated or inconsistent files.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.entries: dict[str, TensorEntry] = {}
        self._files = ExitStack()
        self._open: dict[Path, Any] = {}
        if (directory / SINGLE).is_file():
            self.entries = read_header(directory / SINGLE)
        elif (directory / INDEX).is_file():
            self._read_shards(directory / INDEX)
        else:
            self._refuse()

    def _read_shards(self, index: Path) -> None:
        weight_map = read_json(index, SEE_WEIGHTS)[0].get("weight_map")
        fix = msg("download the directory again, all of its shards included")
        if not isinstance(weight_map, Mapping) or not all(isinstance(name, str) for name in weight_map.values()):
            fail(index, msg("has no `weight_map` from tensors to files"), fix, SEE_WEIGHTS)
        headers: dict[str, dict[str, TensorEntry]] = {}
        for shard in sorted(set(weight_map.values())):
            path = index.parent / shard
            if len(PurePosixPath(shard).parts) != 1 or shard == "..":
                fail(index, msg("names a file outside of the directory: {shard}", shard=shard), fix, SEE_WEIGHTS)
            if not path.is_file():
                fail(index, msg("names the shard {shard}, which is not there", shard=shard), fix, SEE_WEIGHTS)
            headers[shard] = read_header(path)
        for name, shard in weight_map.items():
            if name not in headers[shard]:
                fail(index, msg("puts {name} into {shard}, which lacks it", name=name, shard=shard), fix, SEE_WEIGHTS)
            self.entries[name] = headers[shard][name]

    def _refuse(self) -> NoReturn:
        pickles = sorted(path.name for path in self.directory.glob("*.bin")) + sorted(
            path.name for path in self.directory.glob("*.pt*")
        )
        if pickles:
            fail(
                self.directory,
                msg("keeps its weights in {name}: such files can run code and are not read", name=pickles[0]),
                msg("load the model with transformers and write it again with save_pretrained, or use --spec-only"),
                SEE_WEIGHTS,
            )
        fail(
            self.directory,
            msg("has no model.safetensors and no model.safetensors.index.json"),
            msg("download the weights too, or use --spec-only"),
            SEE_WEIGHTS,
        )

    def dtype(self) -> str | None:
        """The safetensors dtype that holds most numbers."""
        counts: dict[str, int] = {}
        for entry in self.entries.values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + math.prod(entry.shape)
        return max(counts, key=lambda name: counts[name]) if counts else None

    def slice(self, name: str) -> Any:
        """A safetensors slice: index it to read that part of the tensor and nothing else."""
        import safetensors

        file = self.entries[name].file
        if file not in self._open:
            try:
                handle = self._files.enter_context(safetensors.safe_open(str(file), framework="pt"))
            except (safetensors.SafetensorError, OSError) as error:
                _damaged(file, str(error))
            self._open[file] = handle
        return self._open[file].get_slice(name)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, read from its file."""
        part = self.slice(name)
        return part[...] if self.entries[name].shape else part[()]

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors that a safetensors file declares, checked against its length. Raises CompileError when damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER_BYTES, size - 8):
                _damaged(path, msg("its header is cut off"))
            header = json.loads(file.read(length).decode("utf-8"))
        data_bytes = size - 8 - length
        entries = {}
        end = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, stop = entry["data_offsets"]
            entries[name] = TensorEntry(path, str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            expected = math.prod(entries[name].shape) * _ELEMENT_BYTES.get(entries[name].dtype, 0)
            if entries[name].dtype in _ELEMENT_BYTES and stop - begin != expected:
                _damaged(path, _size_reason(name, stop - begin, expected))
            end = max(end, stop)
    except OSError as error:
        _damaged(path, error.strerror or str(error))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _damaged(path, msg("its header is not one of safetensors"))
    if end != data_bytes:
        _damaged(path, _size_reason(path.name, data_bytes, end))
    return entries


def _size_reason(name: str, actual: int, expected: int) -> Message:
    return msg("{name} has {actual} bytes of weights, not {expected}", name=name, actual=actual, expected=expected)


def _damaged(path: Path, reason: Message | str) -> NoReturn:
    fail(
        path,
        msg("is damaged: {reason}", reason=reason),
        msg("download {name} again; its length and checksum tell whether it is whole", name=path.name),
        SEE_WEIGHTS,
    )
