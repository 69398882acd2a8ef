"""A forward leaves everything as it was, and the seed alone decides what a model begins with."""

from __future__ import annotations

from typing import Any

import torch

from eulerstack.compiler.compile import compile_to_hf_model
from eulerstack.ir import normalize_to_ir
from eulerstack.testing.example import Example
from eulerstack.testing.models import built, tokens


def constancy(example: Example) -> None:
    """A forward writes to no parameter, no buffer and no input."""
    check_constancy(built(example.spec()))


def check_constancy(model: Any) -> None:
    """Passes with and without a cache change nothing; a training pass changes no parameter."""
    before = {name: value.clone() for name, value in model.state_dict(keep_vars=False).items()}
    ids = tokens()
    watched = [_watch(name, module) for name, module in model.named_modules() if name]
    with torch.no_grad():
        first = model(ids, use_cache=False).logits
        model(ids, use_cache=True)
    for handles in watched:
        for handle in handles:
            handle.remove()
    assert torch.equal(first, model(ids, use_cache=False).logits), "the same input gives other logits the second time"
    _same(before, model.state_dict(), "a forward")
    parameters = {name for name, _ in model.named_parameters()}
    model.train()(ids, labels=ids, use_cache=False).loss.backward()
    _same({name: before[name] for name in parameters & before.keys()}, model.state_dict(), "a training pass")


def _watch(name: str, module: torch.nn.Module) -> tuple[Any, Any]:
    """Hooks that fail where a module has changed the tensors it was given."""
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        given[:] = [(each, each.clone()) for each in tensors]

    def compare(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        assert all(torch.equal(now, then) for now, then in given), f"{name} writes to the tensors that it is given"

    return module.register_forward_pre_hook(note, with_kwargs=True), module.register_forward_hook(compare)


def _same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], what: str) -> None:
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert not moved, f"{what} writes to {', '.join(moved)}"


def initialization(example: Example) -> None:
    """The seed alone decides about initial weights."""
    ir = normalize_to_ir(example.spec())
    states = []
    for state, seed in ((0, 0), (1, 0), (0, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            states.append(compile_to_hf_model(ir, seed=seed).state_dict())
    first, again, other = states
    moved = [name for name, value in first.items() if not torch.equal(value, again[name])]
    assert not moved, f"with the same seed other initial weights: {', '.join(moved)}"
    lost = [name for name, value in first.items() if not torch.isfinite(value).all()]
    assert not lost, f"initial weights that are no finite numbers: {', '.join(lost)}"
    assert any(not torch.equal(value, other[name]) for name, value in first.items()), "the seed decides nothing"
