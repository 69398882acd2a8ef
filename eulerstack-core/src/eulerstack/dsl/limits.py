"""Bounds on what a spec may hold, so that no file can exhaust time or memory.

They are far above what a person writes: the longest published architectures need some hundred lines.
"""

from __future__ import annotations

MAX_BYTES = 524_288
MAX_DEPTH = 40
MAX_NODES = 20_000
MAX_EXPRESSION_CHARACTERS = 1_000
MAX_PARENTHESES = 50
MAX_NUMBER = 2**63 - 1
MAX_NUMBER_CHARACTERS = 40
