"""Integrators, written out: `layers` map whole sequences (time, d_model) to such, residuals included.

Source: see modules/integrators.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def discrete(hidden_states: Tensor, layers: Sequence[Layer], steps: int) -> Tensor:
    """Layer after layer."""
    for index in range(steps):
        hidden_states = layers[index](hidden_states)
    return hidden_states


def ode_euler(hidden_states: Tensor, layers: Sequence[Layer], steps: int) -> Tensor:
    """x + dt f(x), with f(x) = layer(x) - x and dt = 1 / steps."""
    (layer,), dt = layers, 1 / steps
    for _ in range(steps):
        hidden_states = hidden_states + dt * (layer(hidden_states) - hidden_states)
    return hidden_states


def ode_rk4(hidden_states: Tensor, layers: Sequence[Layer], steps: int) -> Tensor:
    """The same with the tableau 0 1/2 1/2 1 and the weights 1/6 1/3 1/3 1/6."""
    (layer,), dt = layers, 1 / steps
    for _ in range(steps):
        total, slope = hidden_states, None
        for offset, weight in ((0, 1 / 6), (1 / 2, 1 / 3), (1 / 2, 1 / 3), (1, 1 / 6)):
            point = hidden_states if slope is None else hidden_states + offset * dt * slope
            slope = layer(point) - point
            total = total + dt * weight * slope
        hidden_states = total
    return hidden_states
