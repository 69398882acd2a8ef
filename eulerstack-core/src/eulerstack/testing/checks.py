"""The claims about a primitive that are checks of a model that holds it."""

from __future__ import annotations

from typing import Any

import torch

from eulerstack.dsl.source import parse_text
from eulerstack.ir import normalize_to_ir, print_ir
from eulerstack.testing import decoding, training
from eulerstack.testing.claims import DoesNotApply
from eulerstack.testing.example import Example
from eulerstack.testing.models import built, tokens


def decoding_model(example: Example) -> Any:
    """The example's model, if there is a cache that it can decode with."""
    if not example.decodes:
        raise DoesNotApply("a model with it keeps nothing while it decodes")
    return built(example.spec())


def builds(example: Example) -> None:
    """It validates, builds, and gives finite logits."""
    with torch.no_grad():
        logits = built(example.spec())(tokens()).logits
    assert torch.isfinite(logits).all(), "logits are not finite"


def round_trip(example: Example) -> None:
    """What is printed of it is read again as the same."""
    ir = normalize_to_ir(example.spec())
    again = normalize_to_ir(parse_text(print_ir(ir), "printed.yml"))
    assert again == ir, "the printed spec says something else"


def causality(example: Example) -> None:
    """Future tokens never change the past."""
    decoding.check_causality(built(example.spec()), example.exact)


def batch(example: Example) -> None:
    """A batch gives the numbers of its rows."""
    decoding.check_rows(built(example.spec()))


def cache(example: Example) -> None:
    """Decoding with a cache is the full forward, in every chunking."""
    model = decoding_model(example)
    for chunks in decoding.CHUNKS:
        decoding.check_cache(model, chunks)


def padding(example: Example) -> None:
    """Padding changes nothing, left, right or ragged."""
    model = built(example.spec())
    chunked = decoding.PADDED_CHUNKS if example.decodes else decoding.PADDED_CHUNKS[:1]
    for chunks in chunked:
        decoding.check_left_padding(model, chunks)
    decoding.check_right_padding(model)


def packing(example: Example) -> None:
    """Packed sequences stay apart."""
    decoding.check_packing(built(example.spec()))


def beams(example: Example) -> None:
    """A cache's rows change places with the beams."""
    model = decoding_model(example)
    decoding.check_reordering(model)
    decoding.check_beams(model)


def generation(example: Example) -> None:
    """The same tokens are generated with any cache, and with none."""
    decoding.check_generation(decoding_model(example), example.static)


def gradients(example: Example) -> None:
    """Finite differences confirm every gradient."""
    training.check_gradients(built(example.spec()), example.choosing)


def bfloat16(example: Example) -> None:
    """bfloat16 is as exact as rounding between modules, and trains."""
    training.check_bfloat16(lambda: built(example.spec()), example.follow)
