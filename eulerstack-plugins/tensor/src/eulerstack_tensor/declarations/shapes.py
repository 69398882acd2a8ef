"""How a width is split into the legs of a tensor, and how large the bonds between tensors are. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

# The most sites of a MERA that nobody gave a number of.
MOST_SITES = 16
# The usual number of cores of a train.
USUAL_CORES = 3


def prime_factors(number: int) -> list[int]:
    """The prime factors of a number, the largest first."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return sorted([*found, number] if number > 1 else found, reverse=True)


def split(width: int, parts: int) -> tuple[int, ...]:
    """`width` as a product of so many factors, as equal as primes allow, rising. There must be as many primes."""
    factors = [1] * parts
    for prime in prime_factors(width):
        # The smallest gets the next largest; of equal ones the first, so that the result is one.
        factors[factors.index(min(factors))] *= prime
    return tuple(sorted(factors))


def most_parts(*widths: int) -> int:
    """Into how many factors above 1 every one of these widths can be split."""
    return min(len(prime_factors(width)) for width in widths)


def usual_cores(*widths: int) -> int:
    """How many cores a train has where nobody says so."""
    return min(USUAL_CORES, most_parts(*widths))


def usual_sites(*widths: int) -> int:
    """How many sites a MERA has where nobody says so: a power of two."""
    return min(MOST_SITES, 1 << (most_parts(*widths).bit_length() - 1)) if most_parts(*widths) else 0


def bonds(legs: Sequence[int], rank: int) -> tuple[int, ...]:
    """The bonds of a train over these legs, one more than legs: at most `rank`, and no more than can be used."""
    inner = [min(rank, math.prod(legs[:place]), math.prod(legs[place:])) for place in range(1, len(legs))]
    return (1, *inner, 1)


def levels(sites: Sequence[int], rank: int) -> tuple[tuple[int, ...], ...]:
    """The dimensions of the sites of every level of a binary MERA, those of the weight first, two sites last."""
    found = [tuple(sites)]
    while len(found[-1]) > 2:
        below = found[-1]
        pairs = zip(below[::2], below[1::2], strict=True)
        found.append(tuple(min(rank, one * other) for one, other in pairs))
    return tuple(found)
