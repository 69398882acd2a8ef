"""Memories for EulerStack: `neural_memory`, `associative` and `retrieval`.

`declarations` says what they are without torch; `modules` computes them; `reference` computes them slowly and plainly.
"""

__version__ = "1.0.0"
