"""Writes safetensors files tensor by tensor.

The library writes whole dictionaries of tensors, which must then be in memory together. Here every file's header is
laid out beforehand from names and shapes, and each tensor's bytes go to their place as they come, in any order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack.compiler.digests import Digests
from eulerstack.compiler.progress import report
from eulerstack.errors import CompileError, Diagnostic, Message, msg

if TYPE_CHECKING:
    import torch

MAX_SHARD_BYTES = 5 * 10**9
DTYPES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "int64": ("I64", 8)}


def write_weights(
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    expected: Mapping[str, tuple[int, ...]],
    dtype: str | Mapping[str, str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, str]:
    """Writes `model.safetensors`, or shards with an index when one file would be larger than `max_shard_bytes`.

    Returns the SHA-256 of every safetensors file.

    `expected` maps every name to its shape; `dtype` is that of all tensors, or maps every name to its own. Errors:
    CompileError for a tensor that is missing, unknown, given twice or of another shape or dtype.
    """
    dtypes = dict.fromkeys(expected, dtype) if isinstance(dtype, str) else dict(dtype)
    shards = _plan(expected, dtypes, max_shard_bytes)
    place: dict[str, tuple[Path, int]] = {}
    files: dict[str, list[str]] = {}
    with Digests() as digests:
        for index, names in enumerate(shards, 1):
            alone = len(shards) == 1
            file = "model.safetensors" if alone else f"model-{index:05d}-of-{len(shards):05d}.safetensors"
            files[file] = names
            (folder / file).write_bytes(b"")
            header, offsets = _header({name: expected[name] for name in names}, dtypes)
            _write(folder / file, memoryview(header), 0, digests)
            place.update({name: (folder / file, offset) for name, offset in offsets.items()})
        _fill(tensors, place, expected, dtypes, digests)
        found = digests.result()
    if len(shards) > 1:
        total = sum(_size(shape, dtypes[name]) for name, shape in expected.items())
        weight_map = {name: file for file, names in files.items() for name in names}
        index_data = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index_data, indent=2) + "\n", encoding="utf-8")
    return found


def _fill(
    tensors: Iterable[tuple[str, torch.Tensor]],
    place: dict[str, tuple[Path, int]],
    expected: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    digests: Digests,
) -> None:
    import torch

    total = sum(_size(shape, dtypes[name]) for name, shape in expected.items())
    done = 0
    for name, tensor in tensors:
        if name not in place:
            raise _unfit(msg("the weight {name} has no place in this architecture", name=name))
        if tuple(tensor.shape) != expected[name] or tensor.dtype != getattr(torch, dtypes[name]):
            raise _unfit(
                msg(
                    "the weight {name} is {shape} of {dtype}, expected {expected} of {expected_dtype}",
                    name=name,
                    shape=list(tensor.shape),
                    dtype=str(tensor.dtype).removeprefix("torch."),
                    expected=list(expected[name]),
                    expected_dtype=dtypes[name],
                )
            )
        file, offset = place.pop(name)
        content = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
        _write(file, memoryview(content), offset, digests)
        done += _size(expected[name], dtypes[name])
        report(done, total)
    if place:
        raise _unfit(msg("{count} weights are missing, {name} among them", count=len(place), name=next(iter(place))))


def _write(file: Path, content: memoryview, offset: int, digests: Digests) -> None:
    """Writes `content` at `offset`; the operating system may take it in parts.

    Opened for each write, because a system lets a process hold fewer files open than there may be shards; unbuffered,
    because every write is a whole tensor, which `digests` reads back.
    """
    done = 0
    with file.open("r+b", buffering=0) as stream:
        stream.seek(offset)
        while done < len(content):
            done += stream.write(content[done:])
    digests.written(file, offset, offset + done)


def _size(shape: tuple[int, ...], dtype: str) -> int:
    count = 1
    for length in shape:
        count *= length
    return count * DTYPES[dtype][1]


def _plan(expected: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], max_shard_bytes: int) -> list[list[str]]:
    """Names by shard, in the model's order."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in expected.items():
        size = _size(shape, dtypes[name])
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _header(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The bytes before the data, and where in the file each tensor's bytes begin."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin: dict[str, int] = {}
    filled = 0
    for name, shape in shapes.items():
        end = filled + _size(shape, dtypes[name])
        entries[name] = {"dtype": DTYPES[dtypes[name]][0], "shape": list(shape), "data_offsets": [filled, end]}
        begin[name] = filled
        filled = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + offset for name, offset in begin.items()}


def _unfit(what: Message) -> CompileError:
    fix = msg("check that the weights belong to this spec")
    return CompileError([Diagnostic("CompileError", what, fix, "reference/errors.md#output")])
