"""What Mamba's two variants share: the short convolution, the initial step sizes, and where padding goes.

Shapes: channels last, (batch, time, channels)
State:  the convolution keeps its last d_conv − 1 inputs, (batch, d_conv − 1, channels)
Source: Gu & Dao 2023, arXiv:2312.00752, fig. 3 and sec. 3.6
"""

import math
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import initialization

# A raw step size so low that its softplus is exactly 0: the token neither enters the state nor decays it.
NO_STEP = -1e4


def tokens_first(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The order that moves padding behind the tokens, and which places then hold tokens.

    Shapes: attention_mask (batch, time) of 0 and 1 -> indices (batch, time), booleans (batch, time)
    """
    is_token = attention_mask != 0
    if attention_mask.shape[1] == 1:
        return torch.zeros_like(is_token, dtype=torch.long), is_token
    order = torch.argsort((~is_token).long(), dim=1, stable=True)
    return order, is_token.gather(1, order)


def reordered(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """`states` (batch, time, channels) in the order of the indices (batch, time)."""
    return states.gather(1, order.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def raw_step_sizes(num_steps: int, smallest: float, largest: float, device: Any) -> torch.Tensor:
    """Values whose softplus is spread evenly on a logarithmic scale between two step sizes, at random. (num_steps)"""
    spread = torch.rand(num_steps, device=device, dtype=torch.float32)
    steps = torch.exp(math.log(smallest) + spread * (math.log(largest) - math.log(smallest)))
    return steps + torch.log(-torch.expm1(-steps))


@cache
def convolution_kernel() -> Any:
    """causal-conv1d's function; None where it doesn't import."""
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        return None
    return causal_conv1d_fn


class ShortConvolution(nn.Module):
    """A causal convolution of each channel by itself, then SiLU."""

    def __init__(self, channels: int, width: int, bias: bool):
        super().__init__()
        self.width = width
        # (channels, 1, width), as a grouped nn.Conv1d stores it; the last tap weighs the current token
        self.weight = nn.Parameter(torch.empty(channels, 1, width))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None

    def initialize(self, initializer_range: float) -> None:
        """Uniform in ±1/√width, as nn.Conv1d begins; biases zero."""
        bound = self.width**-0.5
        initialization.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            initialization.zeros_(self.bias)

    def forward(
        self,
        inputs: torch.Tensor,
        previous: torch.Tensor | None,
        is_token: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs (batch, time, channels), and the inputs to keep, (batch, width − 1, channels).

        `previous` are the inputs kept last time; `is_token` marks tokens, all of which precede padding; tokens of
        another packed sequence count as zeros.
        """
        kept = self.width - 1
        time = inputs.shape[1]
        if previous is None:
            previous = inputs.new_zeros(inputs.shape[0], kept, inputs.shape[2])
        window = torch.cat((previous.to(inputs.dtype), inputs), dim=1)
        if is_token is None:
            kept_inputs = window[:, time:]
        else:
            ends = is_token.sum(1, keepdim=True) + torch.arange(kept, device=inputs.device)
            kept_inputs = reordered(window, ends)
        if self._kernel_applies(inputs):
            return self._by_kernel(window, inputs, sequence_ids), kept_inputs
        # Sums of several products: in at least float32, rounded once.
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        window, taps = window.to(dtype), self.weight[:, 0].to(dtype).unbind(-1)
        outputs = window[:, kept:] * taps[kept]
        for back in range(1, self.width):
            shifted = window[:, kept - back : kept - back + time]
            if sequence_ids is not None:
                same = sequence_ids == nn.functional.pad(sequence_ids, (back, 0), value=-1)[:, :time]
                shifted = shifted * same.unsqueeze(-1)
            outputs = torch.addcmul(outputs, shifted, taps[kept - back])
        if self.bias is not None:
            outputs = outputs + self.bias.to(dtype)
        return nn.functional.silu(outputs).to(inputs.dtype), kept_inputs

    def _kernel_applies(self, inputs: torch.Tensor) -> bool:
        """Whether causal-conv1d takes these inputs: on CUDA, 2 to 4 taps, channels in eights, not while compiling."""
        return (
            inputs.is_cuda
            and not torch.compiler.is_compiling()
            and 2 <= self.width <= 4
            and inputs.shape[-1] % 8 == 0
            and inputs.dtype != torch.float64
            and convolution_kernel() is not None
        )

    def _by_kernel(self, window: torch.Tensor, inputs: torch.Tensor, sequence_ids: torch.Tensor | None) -> torch.Tensor:
        """The outputs by causal-conv1d, which wants (batch, channels, time)."""
        weight = self.weight[:, 0]
        if sequence_ids is not None:
            sequences = sequence_ids.to(torch.int32).contiguous()
            outputs = convolution_kernel()(
                inputs.contiguous().transpose(1, 2), weight, self.bias, seq_idx=sequences, activation="silu"
            )
            return outputs.transpose(1, 2)
        outputs = convolution_kernel()(window.transpose(1, 2), weight, self.bias, activation="silu")
        return outputs.transpose(1, 2)[:, self.width - 1 :]


class TimeStepProjection(nn.Linear):
    """From the low rank of Δ to its channels; the bias sets the step sizes that training begins with."""

    def __init__(self, rank: int, channels: int, smallest: float, largest: float):
        super().__init__(rank, channels)
        self.smallest, self.largest = smallest, largest

    def initialize(self, initializer_range: float) -> None:
        """Weights uniform in ±1/√rank; biases so that Δ lies between the two step sizes."""
        bound = self.in_features**-0.5
        initialization.uniform_(self.weight, -bound, bound)
        steps = raw_step_sizes(self.out_features, self.smallest, self.largest, self.bias.device)
        initialization.copy_(self.bias, steps)
