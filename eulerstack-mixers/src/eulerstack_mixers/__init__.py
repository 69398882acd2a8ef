"""EulerStack's own primitives: attention, feed-forward blocks, norms, positions, residual rules and heads.

`declarations` says what each one is without torch; `modules` computes it; `reference` computes it slowly and plainly.
"""

__version__ = "1.0.0"
