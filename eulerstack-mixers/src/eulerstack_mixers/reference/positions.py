"""Positions, one number at a time.

Source: RoPE, Su et al. 2021, arXiv:2104.09864, eq. 34; linear, arXiv:2306.15595; dynamic and yarn, arXiv:2309.00071,
eq. 17–23; longrope, arXiv:2402.13753; llama3, arXiv:2407.21783; ALiBi, Press et al. 2021, arXiv:2108.12409
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def frequencies(head_dim: int, rope: Mapping[str, Any], length: int) -> tuple[list[float], float]:
    """Radians per position of every rotated pair, and the factor on cosines and sines.

    `rope` is complete: theta, partial_factor, interleaved, scaling. `length` is one more than the largest position.
    """
    rotated, theta = int(head_dim * rope["partial_factor"]), rope["theta"]
    scaling: Mapping[str, Any] = rope["scaling"] or {"type": "default"}
    kind, factor, original = scaling["type"], scaling.get("factor", 1.0), scaling.get("original_max_seq_len", length)
    if kind == "dynamic":
        stretch = factor * max(length, original) / original - (factor - 1)
        theta = theta * stretch ** (rotated / (rotated - 2))
    plain = [theta ** (-2 * pair / rotated) for pair in range(rotated // 2)]
    if kind == "linear":
        return [frequency / factor for frequency in plain], 1.0
    if kind == "yarn":
        mixed = [yarn_frequency(pair, frequency, rotated, theta, scaling) for pair, frequency in enumerate(plain)]
        return mixed, yarn_factor(scaling)
    if kind == "longrope":
        divisors = scaling["long_factor"] if length > original else scaling["short_factor"]
        attention_factor = scaling["attention_factor"]
        if attention_factor is None:
            attention_factor = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return [frequency / divisor for frequency, divisor in zip(plain, divisors, strict=True)], attention_factor
    if kind == "llama3":
        return [llama3_frequency(frequency, scaling) for frequency in plain], 1.0
    return plain, 1.0


def yarn_frequency(pair: int, plain: float, rotated: int, theta: float, scaling: Mapping[str, Any]) -> float:
    """Fast pairs keep their frequency, slow ones are divided by the factor, a linear ramp joins the two."""

    def pair_that_turns(times: float) -> float:
        return rotated * math.log(scaling["original_max_seq_len"] / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_that_turns(scaling["beta_fast"]), pair_that_turns(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    ramp = (pair - low) / (high - low if high != low else 0.001)
    slowness = min(max(ramp, 0.0), 1.0)
    return plain * (1 - slowness) + plain / scaling["factor"] * slowness


def yarn_factor(scaling: Mapping[str, Any]) -> float:
    """The temperature's square root: 0.1 · ln(factor) + 1, or the ratio of two such with the mscale slopes."""
    if scaling["attention_factor"] is not None:
        return scaling["attention_factor"]

    def slope(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling["factor"]) + 1

    if scaling["mscale"] is not None and scaling["mscale_all_dim"] is not None:
        return slope(scaling["mscale"]) / slope(scaling["mscale_all_dim"])
    return slope(1.0)


def llama3_frequency(plain: float, scaling: Mapping[str, Any]) -> float:
    """Short wavelengths stay, long ones are divided by the factor, those between are mixed."""
    turns = scaling["original_max_seq_len"] * plain / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = min(max((turns - low) / (high - low), 0.0), 1.0)
    return share * plain + (1 - share) * plain / scaling["factor"]


def rotate(states: Tensor, positions: list[int], rope: Mapping[str, Any]) -> Tensor:
    """One head's queries or keys, (time, head_dim), each pair of channels turned by position · frequency."""
    turns, factor = frequencies(states.shape[-1], rope, max(positions) + 1)
    result = states.clone()
    for row, position in enumerate(positions):
        for pair, frequency in enumerate(turns):
            first, second = (2 * pair, 2 * pair + 1) if rope["interleaved"] else (pair, pair + len(turns))
            cosine, sine = factor * math.cos(position * frequency), factor * math.sin(position * frequency)
            x, y = states[row, first], states[row, second]
            result[row, first] = x * cosine - y * sine
            result[row, second] = x * sine + y * cosine
    return result


def alibi_slopes(n_heads: int) -> list[float]:
    """2^(−8/n), 2^(−16/n), …; where n is no power of two, every other slope of the doubled row fills up."""
    power = 1
    while 2 * power <= n_heads:
        power *= 2
    row = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    finer = [2 ** (-8 * head / (2 * power)) for head in range(1, 2 * power + 1, 2)]
    return row + finer[: n_heads - power]


def learned_positions(embedded: Tensor, table: Tensor, positions: list[int]) -> Tensor:
    """Embeddings (time, d_model) plus the table's row of each position."""
    return torch.stack([embedded[row] + table[position] for row, position in enumerate(positions)])
