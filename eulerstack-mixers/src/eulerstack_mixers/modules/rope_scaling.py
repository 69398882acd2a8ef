"""Rules by which rotary positions reach further than they were trained for.

A rule is a function of the module, `rope`: its width (channels that rotate), theta, scaling (the words of the rule) and
original_max_seq_len. Frequencies are radians per token, (rotated / 2).
"""

import math
from typing import Any

import torch


def linear_frequencies(rope: Any, plain: torch.Tensor) -> torch.Tensor:
    """Every position divided by the factor. Source: Chen et al. 2023, arXiv:2306.15595."""
    return plain / rope.scaling["factor"]


def yarn_frequencies(rope: Any, plain: torch.Tensor) -> torch.Tensor:
    """Fast waves are left alone, slow ones divided, those between mixed. Source: Peng et al. 2023, arXiv:2309.00071."""
    scaling = rope.scaling

    def channel(rotations: float) -> float:
        wave = rope.original_max_seq_len / (rotations * 2 * math.pi)
        return rope.width * math.log(wave) / (2 * math.log(rope.theta))

    low, high = channel(scaling["beta_fast"]), channel(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.width - 1)
    if low == high:
        high += 0.001
    channels = torch.arange(rope.width // 2, dtype=torch.float32, device=plain.device)
    kept = 1 - ((channels - low) / (high - low)).clamp(0, 1)
    return plain / scaling["factor"] * (1 - kept) + plain * kept


def llama3_frequencies(rope: Any, plain: torch.Tensor) -> torch.Tensor:
    """Long waves are stretched, short ones kept, those between interpolated. Source: arXiv:2407.21783."""
    scaling = rope.scaling
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = rope.original_max_seq_len * plain / (2 * math.pi)
    smooth = (turns - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    return torch.where(turns < low, plain / factor, torch.where(turns > high, plain, between))


def dynamic_frequencies(rope: Any, longest: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """A base that grows with the length of the input (NTK-aware). Source: Peng et al. 2023, arXiv:2309.00071."""
    factor, original = rope.scaling["factor"], rope.original_max_seq_len
    stretch = factor * longest.clamp(min=original).float() / original - (factor - 1)
    theta = rope.theta * stretch ** (rope.width / (rope.width - 2))
    return 1.0 / theta**exponents


def longrope_frequencies(rope: Any, longest: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Divisors of each frequency, others beyond the original length. Source: Ding et al. 2024, arXiv:2402.13753."""
    long = torch.tensor(rope.scaling["long_factor"], dtype=torch.float32, device=longest.device)
    short = torch.tensor(rope.scaling["short_factor"], dtype=torch.float32, device=longest.device)
    return 1.0 / (torch.where(longest > rope.original_max_seq_len, long, short) * rope.theta**exponents)


def yarn_attention_factor(rope: Any) -> float:
    """The factor on cos and sin: one given, or a temperature. Source: Peng et al. 2023, arXiv:2309.00071, eq. 22."""
    scaling = rope.scaling

    def temperature(mscale: float) -> float:
        return 1.0 if scaling["factor"] <= 1.0 else 0.1 * mscale * math.log(scaling["factor"]) + 1.0

    if scaling["attention_factor"] is not None:
        return scaling["attention_factor"]
    if scaling["mscale"] and scaling["mscale_all_dim"]:
        return temperature(scaling["mscale"]) / temperature(scaling["mscale_all_dim"])
    return temperature(1.0)


def longrope_attention_factor(rope: Any) -> float:
    """The factor on cos and sin: one given, or one that follows from the stretch. Source: arXiv:2402.13753."""
    scaling, original = rope.scaling, rope.original_max_seq_len
    if scaling["attention_factor"] is not None:
        return scaling["attention_factor"]
    factor = scaling["factor"] or rope.max_seq_len / original
    return 1.0 if factor <= 1.0 else math.sqrt(1.0 + math.log(factor) / math.log(original))
