"""Tensor networks for EulerStack: the key `vendor.tensor.weight_form`.

`declarations` says what they are without torch; `modules` computes them; `reference` contracts them slowly and plainly;
`conversion` makes them of a dense model.
"""

__version__ = "1.0.0"
