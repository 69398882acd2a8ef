"""Activation functions by their name in a spec.

`swiglu` and `geglu` name the gated unit; the function on its gate is SiLU and GELU.
Source: Shazeer 2020, arXiv:2002.05202; squared ReLU: So et al. 2021, arXiv:2109.08668
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn


def relu2(hidden_states: torch.Tensor) -> torch.Tensor:
    """max(x, 0)²."""
    return torch.square(nn.functional.relu(hidden_states))


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "swiglu": nn.functional.silu,
    "silu": nn.functional.silu,
    "geglu": nn.functional.gelu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu2": relu2,
}
