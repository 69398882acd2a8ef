"""Rotary position embeddings with their context extensions.

Shapes: position_ids (batch, time) -> cos, sin (batch, time, rotated) each
Cost:   no parameters
Source: Su et al. 2021, arXiv:2104.09864; linear: Chen et al. 2023, arXiv:2306.15595; dynamic (NTK-aware) and yarn: Peng
        et al. 2023, arXiv:2309.00071; longrope: Ding et al. 2024, arXiv:2402.13753; llama3: arXiv:2407.21783
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization


def apply_rotary(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """Rotates the first channels of every head by its position: x·cos + partner(x)·sin.

    Shapes: states (batch, heads, time, head_dim); cos, sin (batch, time, rotated), sin negated for the first channel of
    each pair. Channel i is paired with channel i + rotated / 2, or with its neighbour when `interleaved`.
    """
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    rotated = cos.shape[-1]
    partial = rotated < states.shape[-1]
    head = states[..., :rotated] if partial else states
    partner = head.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if interleaved else head.roll(rotated // 2, -1)
    turned = torch.addcmul(head * cos, partner, sin)
    return torch.cat((turned, states[..., rotated:]), dim=-1) if partial else turned


class RotaryEmbedding(nn.Module):
    """Cosines and sines of the rotation angles, computed in float32.

    `params` holds theta, partial_factor, interleaved, scaling and head_dim (the channels of which a part rotates), all
    present. dynamic and longrope depend on the longest position in the batch, as they are published: a sequence that
    outgrows the original length is rotated otherwise than its beginning was.
    """

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.width = int(params["head_dim"] * params["partial_factor"])
        self.theta = params["theta"]
        self.interleaved = params["interleaved"]
        self.scaling = params["scaling"]
        self.max_seq_len = config.max_position_embeddings
        self.attention_factor = self._attention_factor()
        self.inv_freq: torch.Tensor
        self.register_buffer("inv_freq", self.frequencies(), persistent=False)

    def initialize(self, initializer_range: float) -> None:
        # A buffer that isn't stored holds garbage after a load on the meta device.
        initialization.copy_(self.inv_freq, self.frequencies(self.inv_freq.device))

    def _apply(self, fn: Any, recurse: bool = True) -> "RotaryEmbedding":
        # Frequencies stay in float32 whatever the model is cast to.
        super()._apply(fn, recurse)
        if self.inv_freq.device.type != "meta":
            self.inv_freq = self.frequencies(self.inv_freq.device)
        return self

    @property
    def original_max_seq_len(self) -> int:
        """The context length in tokens that the scaling starts from."""
        return self.scaling.get("original_max_seq_len") or self.max_seq_len

    def _attention_factor(self) -> float:
        """The factor on cos and sin."""
        scaling = self.scaling or {}
        if scaling.get("type") not in ("yarn", "longrope"):
            return 1.0
        if scaling["attention_factor"] is not None:
            return scaling["attention_factor"]
        if scaling["type"] == "longrope":
            factor = scaling["factor"] or self.max_seq_len / self.original_max_seq_len
            return 1.0 if factor <= 1.0 else math.sqrt(1.0 + math.log(factor) / math.log(self.original_max_seq_len))

        def temperature(mscale: float) -> float:
            return 1.0 if scaling["factor"] <= 1.0 else 0.1 * mscale * math.log(scaling["factor"]) + 1.0

        if scaling["mscale"] and scaling["mscale_all_dim"]:
            return temperature(scaling["mscale"]) / temperature(scaling["mscale_all_dim"])
        return temperature(1.0)

    def frequencies(self, device: Any = None) -> torch.Tensor:
        """Angles per token, (rotated / 2), before any dependence on the length of the input."""
        exponents = torch.arange(0, self.width, 2, dtype=torch.float32, device=device) / self.width
        plain = 1.0 / self.theta**exponents
        scaling = self.scaling
        if scaling is None or scaling["type"] in ("dynamic", "longrope"):
            return plain
        factor = scaling["factor"]
        if scaling["type"] == "linear":
            return plain / factor
        if scaling["type"] == "yarn":
            kept = self._yarn_kept(device)
            return plain / factor * (1 - kept) + plain * kept
        # llama3: long waves are stretched, short ones kept, those between interpolated.
        turns = self.original_max_seq_len * plain / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        smooth = (turns - low) / (high - low)
        between = (1 - smooth) * plain / factor + smooth * plain
        return torch.where(turns < low, plain / factor, torch.where(turns > high, plain, between))

    def _yarn_kept(self, device: Any) -> torch.Tensor:
        """How much of each frequency yarn leaves alone, (rotated / 2), from 1 for fast ones to 0 for slow ones."""
        scaling = self.scaling

        def channel(rotations: float) -> float:
            wave = self.original_max_seq_len / (rotations * 2 * math.pi)
            return self.width * math.log(wave) / (2 * math.log(self.theta))

        low, high = channel(scaling["beta_fast"]), channel(scaling["beta_slow"])
        if scaling["truncate"]:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.width - 1)
        if low == high:
            high += 0.001
        channels = torch.arange(self.width // 2, dtype=torch.float32, device=device)
        return 1 - ((channels - low) / (high - low)).clamp(0, 1)

    def _frequencies_at(self, longest: torch.Tensor) -> torch.Tensor:
        """Angles per token for an input of `longest` tokens (a tensor of one number), for dynamic and longrope."""
        scaling, original = self.scaling, self.original_max_seq_len
        exponents = torch.arange(0, self.width, 2, dtype=torch.float32, device=longest.device) / self.width
        if scaling["type"] == "longrope":
            long = torch.tensor(scaling["long_factor"], dtype=torch.float32, device=longest.device)
            short = torch.tensor(scaling["short_factor"], dtype=torch.float32, device=longest.device)
            return 1.0 / (torch.where(longest > original, long, short) * self.theta**exponents)
        factor = scaling["factor"]
        stretch = factor * longest.clamp(min=original).float() / original - (factor - 1)
        theta = self.theta * stretch ** (self.width / (self.width - 2))
        return 1.0 / theta**exponents

    @torch.no_grad()
    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inv_freq = self.inv_freq
        if self.scaling is not None and self.scaling["type"] in ("dynamic", "longrope"):
            inv_freq = self._frequencies_at(position_ids.max() + 1)
        angles = position_ids[..., None].float() * inv_freq
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        # The first channel of a pair gets -sin, the second sin: see `apply_rotary`.
        if self.interleaved:
            cos, sin = cos.repeat_interleave(2, dim=-1), torch.stack((-sin, sin), dim=-1).flatten(-2)
        else:
            cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos.to(hidden_states.dtype), sin.to(hidden_states.dtype)
