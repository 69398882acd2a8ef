"""Lists of parameters that fill themselves: modules are initialised one at a time, and a list is a module."""

from torch import nn
from transformers import initialization


class NormalParameters(nn.ParameterList):
    """Parameters that begin as normal draws of the model's deviation."""

    def initialize(self, initializer_range: float) -> None:
        """Draws all of them."""
        for parameter in self:
            initialization.normal_(parameter, std=initializer_range)


class ZeroParameters(nn.ParameterList):
    """Parameters that begin at 0."""

    def initialize(self, initializer_range: float) -> None:
        """Fills all of them."""
        for parameter in self:
            initialization.zeros_(parameter)
