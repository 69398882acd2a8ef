"""Where eulerstack-ode is not installed, there is nothing to test."""

from __future__ import annotations

from importlib.util import find_spec

import torch

if find_spec("eulerstack_ode") is None:
    collect_ignore_glob = ["test_*.py"]

torch.set_num_threads(1)
