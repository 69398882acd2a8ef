"""Random weights, one module at a time.

Every module is initialised from a random stream of its own, which depends on the seed and the module's name alone, so
that the numbers are the same in any order, with any number of threads, and whatever the other modules are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from eulerstack.compiler.compile import compile_ir
from eulerstack.ir.types import ModelIR

if TYPE_CHECKING:
    import torch

    from eulerstack.hf.models import EulerStackForCausalLM


def build_on_meta(ir: ModelIR) -> EulerStackForCausalLM:
    """The model without memory for its weights, in float32."""
    import torch

    from eulerstack.hf.configuration import EulerStackConfig
    from eulerstack.hf.models import EulerStackForCausalLM

    with torch.device("meta"):
        return EulerStackForCausalLM(EulerStackConfig(**compile_ir(ir)))


def iter_initial(ir: ModelIR, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every stored weight, initialised one module at a time.

    A tensor's memory is used again for the next, so that the largest module bounds it: write it or copy it at once.
    """
    model = build_on_meta(ir)
    tied = set(model.all_tied_weights_keys)
    memory = Memory()
    for name, module in list(model.named_modules()):
        names = [f"{name}.{parameter}" if name else parameter for parameter, _ in _stored(module)]
        if not names or all(full in tied for full in names):
            continue
        initialise_module(model, name, module, seed, ir.model["dtype"], memory)
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
    memory: Memory | None = None,
) -> None:
    """Gives a module on meta its memory, from `memory` or its own, and its initial numbers; its children stay."""
    import torch

    from eulerstack.hf.roles import safe_parameters

    if not module._parameters and not module._buffers:
        return
    if isinstance(module, (torch.nn.ParameterList, torch.nn.ParameterDict)) and not hasattr(module, "initialize"):
        raise TypeError(f"{name}: nothing fills the parameters of a {type(module).__name__} without `initialize`")
    _materialise(module, memory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, name))
        model._init_weights(module)
    safe = safe_parameters(module, model.config.architecture)
    for key, parameter in module._parameters.items():
        if parameter is not None:
            final = getattr(torch, "float32" if key in safe else dtype)
            values = parameter.detach()
            if values.dtype != final:
                values = values.to(final) if memory is None else memory.empty(values.shape, final).copy_(values)
            module._parameters[key] = torch.nn.Parameter(values, requires_grad=parameter.requires_grad)


def _materialise(module: torch.nn.Module, memory: Memory | None) -> None:
    """Moves a module's own parameters and buffers from meta to the CPU, with any content."""
    import torch

    if memory is None:
        module.to_empty(device="cpu", recurse=False)
        return
    for key, parameter in module._parameters.items():
        if parameter is not None:
            values = memory.empty(parameter.shape, parameter.dtype)
            module._parameters[key] = torch.nn.Parameter(values, requires_grad=parameter.requires_grad)
    for key, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[key] = torch.empty_like(buffer, device="cpu")


def stream_seed(seed: int, name: str) -> int:
    """The seed of one module's random stream, of 63 bits."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
