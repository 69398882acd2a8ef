"""Models of small specs, and what every test does with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch

import eulerstack as es
from tests.model.words import VOCAB, changed, tiny_spec

__all__ = ["VOCAB", "built", "changed", "enliven", "follow_routes", "tiny_spec", "tokens"]
torch.set_num_threads(1)


def built(spec: dict[str, Any], seed: int = 0) -> Any:
    """The model of a spec with lively weights: every parameter random at unit scale, the same for the same name."""
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=seed)
    enliven(model)
    return model


def enliven(model: torch.nn.Module) -> None:
    """Random values for every parameter, norms and biases included, depending on its name and shape alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(noise * scale + (1.0 if parameter.ndim == 1 and "weight" in name else 0.0))


def follow_routes(leader: torch.nn.Module, *followers: torch.nn.Module) -> None:
    """Makes the routers of `followers` choose what those of `leader` chose in their last pass; where that has other
    shapes while training, only as long as they don't train."""
    for name, router in leader.named_modules():
        if type(router).__name__ == "DepthGating":
            _follow_gate(router, [follower.get_submodule(name) for follower in followers])
        if type(router).__name__ == "LightningIndexer":
            scores: list[torch.Tensor] = []
            router.register_forward_hook(lambda module, given, output, into=scores: into.append(output))
            for follower in followers:
                follower.get_submodule(name).register_forward_hook(
                    lambda module, given, output, of=scores: output if module.training else of[-1].to(output.dtype)
                )
        if type(router).__name__ == "NativeSparseAttention":
            seen: list[torch.Tensor] = []
            router.selection = lambda *given, own=router.selection, into=seen: into.append(own(*given)) or into[-1]
            for part in (follower.get_submodule(name) for follower in followers):
                part.selection = lambda *given, of=seen, part=part, own=part.selection: (
                    own(*given) if part.training else of[-1]
                )
        if type(router).__name__ == "BranchSelector":
            made: list[torch.Tensor] = []
            router.register_forward_hook(lambda module, given, output, into=made: into.append(output[1]))
            for follower in followers:
                follower.get_submodule(name).register_forward_hook(
                    lambda module, given, output, of=made: output if module.training else (output[0], of[-1])
                )
        if type(router).__name__ != "ExpertRouter":
            continue
        chosen: list[torch.Tensor] = []
        router.register_forward_hook(lambda module, given, output, into=chosen: into.append(output[2]))
        for follower in followers:
            follower.get_submodule(name).register_forward_hook(
                lambda module, given, output, of=chosen: (
                    # A router that the leader's pass did without, one of a head's, chooses for itself.
                    output if module.training or not of else (output[0], module.weigh(output[0], of[-1]), of[-1])
                )
            )


def _follow_gate(leader: Any, followers: list[Any]) -> None:
    last: list[torch.Tensor] = []
    choose = leader.choose

    def recorded(*args: Any, **kwargs: Any) -> Any:
        choice = choose(*args, **kwargs)
        last.append(choice.chosen)
        return choice

    leader.choose = recorded
    for follower in followers:

        def following(*args: Any, own: Any = follower.choose, gate: Any = follower, **kwargs: Any) -> Any:
            choice = own(*args, **kwargs)
            return choice if gate.training else replace(choice, chosen=last[-1])

        follower.choose = following


def tokens(batch: int = 2, time: int = 17, seed: int = 0) -> torch.Tensor:
    """Random token ids, (batch, time)."""
    return torch.randint(0, VOCAB, (batch, time), generator=torch.Generator().manual_seed(seed))
