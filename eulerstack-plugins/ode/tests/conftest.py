"""What these tests need: the package itself, and for what computes, torchdiffeq."""

from __future__ import annotations

from importlib.util import find_spec

import torch

if find_spec("eulerstack_ode") is None:
    collect_ignore_glob = ["test_*.py"]
elif find_spec("torchdiffeq") is None:
    collect_ignore = ["test_stage.py", "test_export.py"]

torch.set_num_threads(1)
