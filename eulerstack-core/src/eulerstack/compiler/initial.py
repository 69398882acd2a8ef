"""Random weights, one module at a time.

Every parameter is drawn from a random stream of its own (`streams`), so that the numbers are the same in any order,
with any number of threads, and whatever the other parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from eulerstack.compiler.compile import compile_ir
from eulerstack.ir.types import ModelIR

if TYPE_CHECKING:
    import torch

    from eulerstack.hf.models import EulerStackForCausalLM


@contextmanager
def new_tensors_on(device: str) -> Iterator[None]:
    """While it is entered, tensors are made in float32 and on `device`, whatever defaults the caller has set."""
    import torch

    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def one_thread() -> Iterator[None]:
    """While it is entered, torch computes in one thread, so that sums are made in one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_on_meta(ir: ModelIR) -> EulerStackForCausalLM:
    """The model without memory for its weights, in float32."""
    from eulerstack.hf.configuration import EulerStackConfig
    from eulerstack.hf.models import EulerStackForCausalLM

    with new_tensors_on("meta"):
        return EulerStackForCausalLM(EulerStackConfig(**compile_ir(ir)))


def iter_initial(model: EulerStackForCausalLM, seed: int, dtype: str) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every stored weight of a model on meta, initialised one module at a time.

    A tensor's memory is used again for the next, so that the largest module bounds it: write it or copy it at once.
    """
    from eulerstack.compiler.streams import new_scratch

    tied = set(model.all_tied_weights_keys)
    memory, scratch = Memory(), new_scratch()
    for name, module in list(model.named_modules()):
        names = [f"{name}.{parameter}" if name else parameter for parameter, _ in _stored(module)]
        if not names or all(full in tied for full in names):
            continue
        initialise_module(model, name, module, seed, dtype, scratch, memory)
        for full, (_, tensor) in zip(names, _stored(module), strict=True):
            if full not in tied:
                yield full, tensor.detach()
        module.to_empty(device="meta", recurse=False)
        memory.free()


class Memory:
    """Blocks that are used again, because an allocator that is asked for large and small ones in turn keeps growing."""

    def __init__(self) -> None:
        self._blocks: list[torch.Tensor] = []
        self._used = 0

    def empty(self, shape: Iterable[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor with any content, for as long as nothing is freed."""
        import torch

        size = math.prod(shape := tuple(shape)) * dtype.itemsize
        if self._used == len(self._blocks):
            self._blocks.append(torch.empty(0, dtype=torch.uint8))
        if self._blocks[self._used].numel() < size:
            self._blocks[self._used] = torch.empty(size, dtype=torch.uint8)
        block = self._blocks[self._used]
        self._used += 1
        return block[:size].view(dtype).view(shape)

    def holds(self, values: torch.Tensor) -> bool:
        """Whether `values` are a whole tensor of this memory, not one that an initialisation put in its place."""
        return values.is_contiguous() and values.data_ptr() in {block.data_ptr() for block in self._blocks}

    def free(self) -> None:
        """Lets all blocks be used again."""
        self._used = 0


def _stored(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """A module's own parameters and persistent buffers."""
    transient = module._non_persistent_buffers_set
    own = [*module._parameters.items(), *((n, b) for n, b in module._buffers.items() if n not in transient)]
    return [(name, tensor) for name, tensor in own if tensor is not None]


def initialise_module(
    model: EulerStackForCausalLM,
    name: str,
    module: torch.nn.Module,
    seed: int,
    dtype: str,
    scratch: torch.Tensor,
    memory: Memory | None = None,
) -> None:
    """Gives a module on meta its memory, from `memory` or its own, and its initial numbers; its children stay.

    `scratch` is that of `streams.new_scratch`, one for all modules.
    """
    import torch

    from eulerstack.compiler.streams import RandomStreams
    from eulerstack.hf.initial_weights import draws_once
    from eulerstack.hf.roles import safe_parameters

    if not module._parameters and not module._buffers:
        return
    if isinstance(module, (torch.nn.ParameterList, torch.nn.ParameterDict)) and not hasattr(module, "initialize"):
        raise TypeError(f"{name}: nothing fills the parameters of a {type(module).__name__} without `initialize`")
    safe = safe_parameters(module, model.config.architecture)
    final = {
        key: getattr(torch, "float32" if key in safe else dtype)
        for key, parameter in module._parameters.items()
        if parameter is not None
    }
    # What is drawn and left alone is rounded while it is drawn; what is computed with, at the end.
    at_once = draws_once(module, model.config)
    # Products and factorisations differ in their last bits from one number of threads to another.
    factorises = hasattr(module, "initialize") or model.config.architecture["training_hints"]["init"] == "orthogonal"
    with new_tensors_on("cpu"), one_thread() if factorises else nullcontext():
        _materialise(module, final if at_once else {}, memory)
        owned = {key: each for key, each in module._parameters.items() if each is not None}
        with torch.random.fork_rng(devices=[]), RandomStreams(seed, name, owned, scratch):
            model._init_weights(module)
    for key, dtype_of in final.items():
        parameter = module._parameters[key]
        if parameter.dtype != dtype_of:
            values = parameter.detach()
            if memory is not None and memory.holds(values):
                values = _narrowed(values, dtype_of, scratch)
            else:
                values = values.to(dtype_of)
            module._parameters[key] = torch.nn.Parameter(values, requires_grad=parameter.requires_grad)


def _materialise(module: torch.nn.Module, dtypes: Mapping[str, torch.dtype], memory: Memory | None) -> None:
    """Moves a module's own parameters and buffers from meta to the CPU, with any content; parameters in `dtypes`."""
    import torch

    empty = torch.empty if memory is None else memory.empty
    for key, parameter in module._parameters.items():
        if parameter is not None:
            values = empty(parameter.shape, dtype=dtypes.get(key, parameter.dtype))
            module._parameters[key] = torch.nn.Parameter(values, requires_grad=parameter.requires_grad)
    for key, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[key] = torch.empty_like(buffer, device="cpu")


def _narrowed(values: torch.Tensor, dtype: torch.dtype, scratch: torch.Tensor) -> torch.Tensor:
    """Contiguous `values` rounded to `dtype`, in the first part of their own memory where fewer bytes are needed.

    `scratch` is as `new_scratch` makes it.
    """
    from eulerstack.compiler.streams import pieces

    if dtype.itemsize > values.dtype.itemsize:
        return values.to(dtype)
    wide = values.view(-1)
    narrow = wide.view(dtype)[: wide.numel()]
    done = 0
    # A piece is written where numbers lay that are read already.
    for piece in pieces(wide):
        rounded = scratch.view(dtype)[: piece.numel()].copy_(piece)
        narrow[done : done + piece.numel()] = rounded
        done += piece.numel()
    return narrow.view(values.shape)
