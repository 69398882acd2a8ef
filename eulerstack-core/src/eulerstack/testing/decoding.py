"""What a cache, a mask, a batch and a packing must never change: the function.

Each check takes a model in evaluation mode and raises an AssertionError that says by how much it is off.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from eulerstack.testing.models import far_apart, tokens

TOLERANCE = 1e-5
# One token at a time, two halves, pieces of many lengths, and one token after all the others.
CHUNKS = ((1,) * 17, (5, 12), (1, 3, 1, 7, 2, 3), (16, 1))
# The same for the 22 tokens of a batch with padding.
PADDED_CHUNKS = ((22,), (1,) * 22, (3, 6, 13))


def assert_close(found: torch.Tensor, expected: torch.Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Fails where two tensors are further apart than `tolerance`, relative to unit scale."""
    distance = far_apart(found, expected)
    assert distance < tolerance, f"{what}: off by {distance:.2g}, where {tolerance:.0e} is allowed"


@torch.no_grad()
def check_causality(model: Any, exact: bool = True) -> None:
    """Another token changes its own logits and those after it, and none before; not by a bit where `exact`.

    Where it isn't, because the shapes of what is computed follow from what tokens choose, the model is asked in
    float64, whose rounding is far below what a token that leaks would change.
    """
    ids = tokens()
    if not exact:
        model = copy.deepcopy(model).double()
    altered = ids.clone()
    altered[:, 11] = (altered[:, 11] + 1) % model.config.vocab_size
    before, after = model(ids, use_cache=False).logits, model(altered, use_cache=False).logits
    if exact:
        assert torch.equal(before[:, :11], after[:, :11]), "logits of tokens 0–10 depend on token 11"
    else:
        assert_close(after[:, :11], before[:, :11], "logits of tokens 0–10 depend on token 11", 1e-12)
    assert not torch.equal(before[:, 11], after[:, 11]), "the logits of a token don't depend on it"


@torch.no_grad()
def check_cache(model: Any, chunks: Sequence[int]) -> None:
    """Tokens that are decoded in chunks, with a cache, have the logits of one pass over all of them."""
    ids = tokens()
    full = model(ids, use_cache=False).logits
    cache, parts, start = None, [], 0
    for length in chunks:
        output = model(ids[:, start : start + length], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
        start += length
    assert_close(torch.cat(parts, 1), full, f"decoding in chunks of {tuple(chunks)} is not the full forward")


@torch.no_grad()
def check_left_padding(model: Any, chunks: Sequence[int]) -> None:
    """Padding on the left, more of it in one row than in the other, changes no logits of tokens."""
    ids = tokens()
    full = model(ids, use_cache=False).logits
    ragged = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids], 1)
    mask = torch.ones_like(ragged)
    mask[:, :5] = 0
    # The second row has fewer tokens: its padding reaches further.
    ragged[1, 5:9], mask[1, 5:9] = 0, 0
    short = model(ids[1:, 4:], use_cache=False).logits
    cache, parts, start = None, [], 0
    for length in chunks:
        end = start + length
        output = model(
            ragged[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=len(chunks) > 1
        )
        cache = output.past_key_values
        parts.append(output.logits)
        start = end
    logits = torch.cat(parts, 1)
    assert_close(logits[0, 5:], full[0], f"5 tokens of padding on the left count, in chunks of {tuple(chunks)}")
    assert_close(logits[1, 9:], short[0], f"9 tokens of padding on the left count, in chunks of {tuple(chunks)}")


@torch.no_grad()
def check_right_padding(model: Any) -> None:
    """Padding on the right changes no logits of tokens."""
    ids = tokens()
    full, short = model(ids, use_cache=False).logits, model(ids[1:, :12], use_cache=False).logits
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    padded = model(ids, attention_mask=mask, use_cache=False).logits
    assert_close(padded[0], full[0], "padding on the right of another row counts")
    assert_close(padded[1, :12], short[0], "padding on the right counts")


@torch.no_grad()
def check_rows(model: Any) -> None:
    """A batch gives the numbers of its rows."""
    ids = tokens(batch=3)
    together = model(ids, use_cache=False).logits
    for row in range(3):
        alone = model(ids[row : row + 1], use_cache=False).logits[0]
        assert_close(alone, together[row], f"row {row} depends on what else is in its batch")


@torch.no_grad()
def check_reordering(model: Any) -> None:
    """Rows of a cache that change places, as beams do, go on as if they had stood there from the beginning."""
    ids, order = tokens(batch=3), torch.tensor([2, 0, 0])
    cache = model(ids[:, :9], use_cache=True).past_key_values
    cache.reorder_cache(order)
    found = model(ids[:, 9:], past_key_values=cache, use_cache=True).logits
    whole = torch.cat((ids[order, :9], ids[:, 9:]), dim=1)
    assert_close(found, model(whole, use_cache=False).logits[:, 9:], "the cache's rows did not change places")


@torch.no_grad()
def check_beams(model: Any) -> None:
    """Beam search finds the same beams with and without a cache."""
    ids = tokens(time=6)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    found, expected = (model.generate(ids, use_cache=use, pad_token_id=0, **options) for use in (True, False))
    assert torch.equal(found, expected), "beam search finds other beams with a cache"


@torch.no_grad()
def check_generation(model: Any, static: bool = True) -> None:
    """The same tokens are generated with a cache, without one, and with a static one; not `static`: that is refused."""
    ids = tokens(time=6)
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options)), "other tokens without a cache"
    fixed = {"cache_implementation": "static", "disable_compile": True}
    if static:
        assert torch.equal(cached, model.generate(ids, **fixed, **options)), "other tokens with a static cache"
    else:
        with pytest.raises(ValueError, match="use the default cache instead of a static one"):
            model.generate(ids, **fixed, **options)


def check_packing(model: Any) -> None:
    """Sequences packed into one row have the logits, and give the gradients, that they have alone."""
    first, second = tokens(batch=1, time=9, seed=1), tokens(batch=1, time=7, seed=2)
    positions = torch.cat([torch.arange(9), torch.arange(7)])[None]
    packed = model(torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits
    packed[:, -7:].square().sum().backward()
    gradients = {
        key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    assert_close(packed[:, :9], model(first, use_cache=False).logits, "the first sequence sees the second")
    alone = model(second, use_cache=False).logits
    assert_close(packed[:, 9:], alone, "the second sequence sees the first")
    alone.square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = max(1.0, float(parameter.grad.abs().max()))
            assert (gradients[key] - parameter.grad).abs().max() < 1e-4 * scale, f"another gradient of {key}"
