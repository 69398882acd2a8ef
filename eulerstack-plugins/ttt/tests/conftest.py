"""One layer by itself, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eulerstack.schema.defaults import complete

if find_spec("eulerstack_ttt") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from eulerstack_ttt.declarations.ttt import TTT_LAYER
    from eulerstack_ttt.modules.ttt import TTTLayer

torch.set_num_threads(1)
MODEL = {"model": {"head_dim": 8}}


def complete_params(**words: Any) -> dict[str, Any]:
    """Complete, resolved parameters."""
    return dict(TTT_LAYER.resolve(complete(TTT_LAYER.schema or {}, words), MODEL))


def initial(**words: Any) -> TTTLayer:
    """A layer of 3 heads of 8 channels over 24, as it is initialised."""
    architecture = {"model": {"norm_eps": 1e-5}}
    config = SimpleNamespace(hidden_size=24, num_attention_heads=3, head_dim=8, architecture=architecture)
    torch.manual_seed(0)
    layer = TTTLayer(config, complete_params(**words), layer_idx=0)
    layer.initialize(0.02)
    return layer


def lively(**words: Any) -> TTTLayer:
    """The same with every parameter moved off its initial value."""
    layer = initial(**words)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer


@pytest.fixture
def params() -> Callable[..., dict[str, Any]]:
    """Words of the block -> complete, resolved parameters."""
    return complete_params


@pytest.fixture
def initial_layer() -> Callable[..., TTTLayer]:
    """Words of the block -> a layer as it is initialised."""
    return initial


@pytest.fixture
def lively_layer() -> Callable[..., TTTLayer]:
    """Words of the block -> a layer with every parameter moved off its initial value."""
    return lively
