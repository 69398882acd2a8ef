"""Test-time training for EulerStack: the mixer `ttt_layer`.

`declarations` says what it is without torch; `modules` computes it; `reference` computes it slowly and plainly.
"""

__version__ = "1.0.0"
