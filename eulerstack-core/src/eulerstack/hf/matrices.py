"""The matrix of a linear layer, where a module needs it rather than the layer's output."""

from typing import Any

import torch
from torch import nn


def matrix_of(linear: Any, dtype: torch.dtype) -> torch.Tensor:
    """The matrix that a linear layer multiplies its input by, without its bias; (out, in), in `dtype`.

    The `weight` of a layer that has been replaced doesn't say it all: an adapter adds to it, a layer of few bits stores
    something else, a layer that rounds uses another. Such a layer is asked for the outputs of the unit vectors.
    """
    if type(linear).forward is nn.Linear.forward:
        return linear.weight.to(dtype)
    held = linear.weight
    unit = torch.eye(linear.in_features, dtype=held.dtype if held.is_floating_point() else dtype, device=held.device)
    outputs = linear(unit)
    if linear.bias is not None:
        outputs = outputs - linear.bias
    return outputs.t().to(dtype)
