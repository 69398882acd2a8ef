"""No feed-forward block: neither parameters nor FLOPs, and the layer drops the norms that would stand around it."""

from __future__ import annotations

from eulerstack.plugins import Primitive

NO_FFN = Primitive(
    name="none",
    kind="ffn",
    summary="no feed-forward block and none of its norms: the layer is its mixer alone",
    paper="arXiv:2312.00752",
    absent=True,
)
