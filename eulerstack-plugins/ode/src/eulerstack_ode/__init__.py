"""Adaptive integration for EulerStack: the integrator `ode_adaptive`.

`declarations` says what it is without torch; `modules` computes it with torchdiffeq; `reference` computes it slowly and
plainly.
"""

__version__ = "1.0.0"
