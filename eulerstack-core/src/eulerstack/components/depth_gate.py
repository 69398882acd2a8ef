"""Mixture-of-Depths for use by hand: see `DepthGate`."""

from eulerstack.hf.depth_gate import DepthGate

__all__ = ["DepthGate"]
