"""Activation functions by their name in a spec. A gated unit is named by itself; the function is that on its gate."""

import torch
from torch import nn

from eulerstack.hf.tables import ByName


def gelu_tanh(hidden_states: torch.Tensor) -> torch.Tensor:
    """GELU with tanh in place of the error function. Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2."""
    return nn.functional.gelu(hidden_states, approximate="tanh")


def relu2(hidden_states: torch.Tensor) -> torch.Tensor:
    """max(x, 0)². Source: So et al. 2021, arXiv:2109.08668."""
    return torch.square(nn.functional.relu(hidden_states))


# The gated units: Shazeer 2020, arXiv:2002.05202.
ACTIVATIONS: ByName = {
    "swiglu": nn.functional.silu,
    "silu": nn.functional.silu,
    "geglu": nn.functional.gelu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": nn.functional.relu,
    "relu2": relu2,
}
