"""A module against its naive implementation, in float64, forward and backward.

The naive implementation is a function of one sequence. Its first argument is what the module is given: hidden states
(time, d_model), of a residual with several streams (time, streams, d_model), of a merge the streams (streams, time,
d_model), of a position the positions, a list of integers. Every other argument is found by its name:

    weights      the module's parameters by their names in it ("out_proj.weight"); of a head `lm_head.weight` too
    params       all words of its block and beside its type; each of them may be asked for by its own name too
    d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size, max_seq_len, norm_eps, positional: the model's sizes
    position_embeddings   of a mixer that asks for rotary tables: cosines and sines, each (time, channels)
    layers       of an integrator: its layers, functions of a sequence
    mixer, ffn, norms, position, scaling   of a residual: the branches (`ffn` may be None), the norms by the names of
                 their slots, where the norm stands, and the factor on branches
    keys         of a position that acts on scores: the positions of the keys

It returns what the module returns for one sequence: (time, d_model), of a head (time, vocab_size), of a position that
acts on scores (n_heads, time, keys).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module

import torch

from eulerstack.testing.bench import Observed, observed
from eulerstack.testing.example import Example
from eulerstack.testing.models import far_apart

TOLERANCE = 1e-9
# What is a function of places alone is computed in float32, as transformers does.
TOLERANCE_OF_PLACES = 1e-5
# What a branch or a layer is asked for again by the naive implementation stands for one sequence.
ONE_SEQUENCE = ("residual", "integrator", "position")


def check_reference(example: Example) -> None:
    """It is its naive reference, forward and backward."""
    seen = observed(example, torch.float64, batch=1 if example.kind in ONE_SEQUENCE else 2)
    naive = naive_of(example)
    expected = torch.stack([called(naive, seen, row) for row in seen.inputs])
    assert expected.shape == seen.output.shape, (
        f"for {len(seen.inputs)} sequences the module returns {tuple(seen.output.shape)}, the reference "
        f"{tuple(expected.shape)}"
    )
    of_places = example.kind == "position"
    _close("the output", seen.output, expected, TOLERANCE_OF_PLACES if of_places else TOLERANCE)
    leaves = {"its input": seen.inputs, **seen.parameters}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not leaves or not seen.output.requires_grad:
        return
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    ours, theirs = (
        torch.autograd.grad((output * weight).sum(), list(leaves.values()), allow_unused=True, retain_graph=True)
        for output in (seen.output, expected)
    )
    for name, leaf, one, other in zip(leaves, leaves.values(), ours, theirs, strict=True):
        absent = torch.zeros_like(leaf)
        _close(f"the gradient of {name}", absent if one is None else one, absent if other is None else other)


def naive_of(example: Example) -> Callable[..., torch.Tensor]:
    """The example's naive implementation, or the one that the declaration names."""
    if example.reference is not None:
        return example.reference
    module, _, name = example.primitive.reference.partition(":")
    assert name, (
        'it has no naive implementation: declare reference="package.reference.file:function", or give one to Example'
    )
    naive: Callable[..., torch.Tensor] = getattr(import_module(module), name)
    return naive


def called(naive: Callable[..., torch.Tensor], seen: Observed, row: torch.Tensor) -> torch.Tensor:
    """What the naive implementation makes of one row, given by their names the arguments that it asks for."""
    first, *names = inspect.signature(naive).parameters.values()
    offered = {**asdict(seen.dims), **seen.params, **seen.others, "weights": seen.parameters, "params": seen.params}
    missing = [each.name for each in names if each.default is each.empty and each.name not in offered]
    assert not missing, (
        f"the reference asks for {', '.join(missing)}; it may have {', '.join(sorted(offered))}. An Example's "
        "`reference` may be a function that finds out the rest"
    )
    given = {each.name: offered[each.name] for each in names if each.name in offered}
    return naive(row if row.is_floating_point() else row.tolist(), **given)


def _close(what: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    distance = far_apart(found, expected)
    assert distance < tolerance, (
        f"{what} is off by {distance:.2g} from the naive reference, where {tolerance:.0e} is allowed in float64"
    )
