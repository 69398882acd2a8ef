"""A primitive of every kind that can be registered keeps what every primitive must keep."""

from __future__ import annotations

import pytest
import torch

from eulerstack.testing import Example, conformance

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("installed")

test_conformance = conformance(
    "eulerstack-toy",
    Example("mixer", "vendor.toy.ema", {"half_life": 4.0}),
    Example("ffn", "vendor.toy.maxout", {"pieces": 3}),
    Example("norm", "vendor.toy.power", {"p": 3.0}),
    Example("position", "vendor.toy.waves"),
    Example("residual", "vendor.toy.gated"),
    Example("memory", "vendor.toy.average", {"scale": 0.5}),
    Example("head", "vendor.toy.low_rank", {"z_loss": 0.001}),
    Example("integrator", "vendor.toy.relax", {"rate": 0.25}),
    Example("merge", "vendor.toy.blend", {"share": 0.25}),
    Example(
        "linear",
        "vendor.toy.blocks",
        given={"`vendor.toy.block_diagonal`": {"blocks": 2}},
        others={"names": ["down_proj"]},
    ),
)
