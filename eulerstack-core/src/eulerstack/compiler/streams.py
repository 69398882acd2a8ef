"""Random streams by name: which numbers fill a parameter depends on the seed and the parameter's name alone.

Whatever an initialisation draws begins a stream: the first draw into a parameter the one of the parameter's name, a
second draw into it one of its own, and a draw into something else, say a tensor that is copied into a parameter
afterwards, one of the module's name and of how many such draws the module made before. So no draw moves another,
whatever its size.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Numbers that are drawn at once where they are rounded; a multiple of what torch's vector code makes in one step, so
# that pieces hold the numbers of the whole.
PIECE = 2**20
STEP = 16
# What draws element after element, and so may draw in pieces.
PIECEWISE = frozenset({torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default})


def stream_seed(seed: int, name: str) -> int:
    """The seed of the stream of this name, of 63 bits."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RandomStreams(TorchDispatchMode):
    """While it is entered, what is drawn on the CPU for the module `name` comes from streams by name.

    Draws into parameters of fewer bits than float32 are made in float32 and rounded, in `scratch` as `new_scratch`
    makes it. The state of torch's own generator is the caller's to keep.
    """

    def __init__(self, seed: int, name: str, parameters: Mapping[str, torch.Tensor], scratch: torch.Tensor):
        super().__init__()
        self.seed = seed
        self.scratch = scratch
        self.drawn_beside = f"{name}."
        self.names = {each.untyped_storage().data_ptr(): f"{name}.{key}" for key, each in parameters.items()}
        self.draws: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        into = next((each for each in func._schema.arguments if each.alias_info and each.alias_info.is_write), None)
        if into is None:
            self._begin(None)
            return func(*args, **kwargs)
        target = kwargs[into.name] if into.kwarg_only else args[0]
        self._begin(target)
        if not target.is_floating_point() or target.dtype.itemsize >= torch.float32.itemsize:
            return func(*args, **kwargs)
        if into.kwarg_only:
            return target.copy_(func(*args, **{**kwargs, into.name: target.float()}))
        if func not in PIECEWISE or not target.is_contiguous():
            return target.copy_(func(target.float(), *args[1:], **kwargs))
        for piece in pieces(target.view(-1)):
            piece.copy_(func(self.scratch[: piece.numel()], *args[1:], **kwargs))
        return target

    def _begin(self, target: torch.Tensor | None) -> None:
        """Begins the stream of the next draw, into `target` or into a tensor that isn't there yet."""
        known = None if target is None else self.names.get(target.untyped_storage().data_ptr())
        stream = known or self.drawn_beside
        count = self.draws[stream]
        self.draws[stream] += 1
        torch.default_generator.manual_seed(stream_seed(self.seed, f"{stream}#{count}" if count else stream))


def new_scratch() -> torch.Tensor:
    """Room for the largest piece.

    Made once for many modules: an allocator that is asked for it again and again takes more memory each time.
    """
    return torch.empty(PIECE + STEP, dtype=torch.float32, device="cpu")


def pieces(flat: torch.Tensor) -> list[torch.Tensor]:
    """A vector in views of PIECE elements, the last of them at least STEP and up to PIECE + STEP - 1."""
    count = max(1, -(-(flat.numel() - STEP + 1) // PIECE))
    starts = [PIECE * index for index in range(count)]
    return [flat[start:stop] for start, stop in zip(starts, [*starts[1:], flat.numel()], strict=True)]
