"""Rotary position embeddings.

Shapes: position_ids (batch, time) -> cos, sin (batch, time, rotated) each
Cost:   no parameters
Source: Su et al. 2021, arXiv:2104.09864
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.tables import ByName
from eulerstack_mixers.modules.rope_scaling import (
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    longrope_attention_factor,
    longrope_frequencies,
    yarn_attention_factor,
    yarn_frequencies,
)

# (rope, plain frequencies) -> frequencies, fixed once and for all.
FREQUENCIES: ByName = {
    "linear": linear_frequencies,
    "yarn": yarn_frequencies,
    "llama3": llama3_frequencies,
}
# (rope, length of the input as a tensor, exponents of theta) -> frequencies of that input.
FREQUENCIES_OF_LENGTH: ByName = {
    "dynamic": dynamic_frequencies,
    "longrope": longrope_frequencies,
}
# rope -> the factor on cos and sin, where it is not 1.
ATTENTION_FACTORS: ByName = {
    "yarn": yarn_attention_factor,
    "longrope": longrope_attention_factor,
}


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
    present. Scalings that depend on the longest position in the batch do so as they are published: a sequence that
    outgrows the original length is rotated otherwise than its beginning was.
    """

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.width = int(params["head_dim"] * params["partial_factor"])
        self.theta = params["theta"]
        self.interleaved = params["interleaved"]
        self.scaling = params["scaling"]
        self.rule = None if self.scaling is None else self.scaling["type"]
        self.max_seq_len = config.max_position_embeddings
        self.attention_factor = ATTENTION_FACTORS[self.rule](self) if self.rule in ATTENTION_FACTORS else 1.0
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

    def exponents(self, device: Any = None) -> torch.Tensor:
        """What theta is raised to for each rotated pair."""
        return torch.arange(0, self.width, 2, dtype=torch.float32, device=device) / self.width

    def frequencies(self, device: Any = None) -> torch.Tensor:
        """Angles per token, (rotated / 2), before any dependence on the length of the input."""
        plain = 1.0 / self.theta ** self.exponents(device)
        return FREQUENCIES[self.rule](self, plain) if self.rule in FREQUENCIES else plain

    @torch.no_grad()
    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inv_freq = self.inv_freq
        if self.rule in FREQUENCIES_OF_LENGTH:
            longest = position_ids.max() + 1
            inv_freq = FREQUENCIES_OF_LENGTH[self.rule](self, longest, self.exponents(longest.device))
        angles = position_ids[..., None].float() * inv_freq
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        # The first channel of a pair gets -sin, the second sin: see `apply_rotary`.
        if self.interleaved:
            cos, sin = cos.repeat_interleave(2, dim=-1), torch.stack((-sin, sin), dim=-1).flatten(-2)
        else:
            cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos.to(hidden_states.dtype), sin.to(hidden_states.dtype)
