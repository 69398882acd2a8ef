"""Small models with lively weights, and the inputs that they are given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from eulerstack.compiler.compile import compile_to_hf_model
from eulerstack.ir import normalize_to_ir
from eulerstack.testing.specs import VOCAB


def built(spec: Mapping[str, Any], seed: int = 0) -> Any:
    """The model of a spec with lively weights: every parameter random at unit scale, the same for the same name."""
    model = compile_to_hf_model(normalize_to_ir(spec), seed=seed)
    enliven(model)
    return model


def enliven(model: torch.nn.Module) -> None:
    """Random values for every parameter, norms and biases included, depending on its name and shape alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(noise * scale + (1.0 if parameter.ndim == 1 and "weight" in name else 0.0))


def tokens(batch: int = 2, time: int = 17, seed: int = 0) -> torch.Tensor:
    """Random token ids, (batch, time)."""
    return torch.randint(0, VOCAB, (batch, time), generator=torch.Generator().manual_seed(seed))


def far_apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference, relative to numbers of unit scale; infinite where one of them is no number."""
    difference = (first - second).detach().abs().max() / second.detach().abs().max().clamp(min=1.0)
    return float(difference.nan_to_num(nan=float("inf")))
