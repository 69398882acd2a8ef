"""Models of small specs, those of the conformance kit, and routers that follow another model's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from eulerstack.testing.models import built, enliven, tokens
from eulerstack.testing.specs import VOCAB, changed, tiny_spec

__all__ = ["VOCAB", "built", "changed", "enliven", "follow_routes", "tiny_spec", "tokens"]
torch.set_num_threads(1)


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
