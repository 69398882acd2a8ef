"""How weights begin: the scheme that `training_hints.init` names, and µP's widths.

Modules that fill their own parameters (`initialize`) follow neither, except that those which hold matrices are given
the deviation that a matrix of this width should have.

Under µP, for m = d_model / base_width, matrices have their deviation divided by √m where they are drawn with a fixed
one (a deviation that follows from the shape shrinks by itself), routers by another √m; queries and an untied readout
begin at 0; embeddings are as ever.

Source: µP: Yang et al. 2022, arXiv:2203.03466, table 8 and appendix D.2; scaled_normal: Radford et al. 2019, GPT-2;
        xavier: Glorot & Bengio 2010; lecun: LeCun et al. 1998; orthogonal: Saxe et al. 2014, arXiv:1312.6120
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.roles import HIDDEN_ROLES, MATRIX_ROLES

# Deviations at which a truncated normal is cut.
TRUNCATION = 3.0
# What that leaves of the deviation: √(1 - 2·c·φ(c) / erf(c/√2)) for c = 3.
TRUNCATED_DEVIATION = 0.9865782
# Schemes whose deviation is the spec's initializer_range; that of the others follows from the matrix's shape.
FIXED_SCHEMES = frozenset({"normal", "truncated_normal", "scaled_normal"})


def width_multiplier(architecture: dict[str, Any]) -> float:
    """d_model / base_width under µP, otherwise 1."""
    scaling = architecture["training_hints"]["scaling"]
    if scaling["parametrization"] != "mup":
        return 1.0
    return architecture["model"]["d_model"] / scaling["base_width"]


def uses_mup(architecture: dict[str, Any]) -> bool:
    """Whether the architecture asks for µP."""
    return architecture["training_hints"]["scaling"]["parametrization"] == "mup"


def own_deviation(module: nn.Module, config: Any) -> float:
    """The deviation that a module with an `initialize` of its own is given.

    One that computes a linear layer by other means is given that of the matrix which it stands for.
    """
    if hasattr(module, "stands_for"):
        role, out_features, in_features = module.stands_for
        return matrix_deviation(role, out_features, in_features, config)
    roles = getattr(module, "_noted_roles", {}).values()
    if any(role in HIDDEN_ROLES for role in roles):
        return config.initializer_range * width_multiplier(config.architecture) ** -0.5
    return config.initializer_range


def matrix_deviation(role: str, out_features: int, in_features: int, config: Any) -> float:
    """The deviation of the entries with which a matrix of this role and shape begins, µP aside."""
    scheme, deviation = config.architecture["training_hints"]["init"], config.initializer_range
    by_shape = {
        "lecun_normal": in_features**-0.5,
        "orthogonal": max(out_features, in_features) ** -0.5,
        "xavier_normal": (2 / (in_features + out_features)) ** 0.5,
        "xavier_uniform": (2 / (in_features + out_features)) ** 0.5,
    }
    if scheme == "scaled_normal" and role == "output":
        return deviation * (2 * config.num_hidden_layers) ** -0.5
    return by_shape.get(scheme, deviation * TRUNCATED_DEVIATION if scheme == "truncated_normal" else deviation)


def draws_once(module: nn.Module, config: Any) -> bool:
    """Whether a module's parameters are drawn, or set, and then left alone.

    A module that fills its own says so by `only_draws`.
    """
    if hasattr(module, "initialize"):
        return getattr(module, "only_draws", False)
    return config.architecture["training_hints"]["init"] == "normal" and not uses_mup(config.architecture)


def redraw(module: nn.Module, config: Any) -> None:
    """Changes what transformers' normal draw left in a module's matrices to what the architecture asks for."""
    if draws_once(module, config):
        return
    scheme, mup = config.architecture["training_hints"]["init"], uses_mup(config.architecture)
    for name, role in getattr(module, "_noted_roles", {}).items():
        parameter = getattr(module, name)
        # Loaded weights stay, and a tied readout is the embedding.
        loaded = getattr(parameter, "_is_hf_initialized", False)
        tied = role == "readout" and config.tie_word_embeddings
        if role not in MATRIX_ROLES or loaded or tied or parameter.device.type == "meta":
            continue
        if mup and role in ("query", "readout"):
            initialization.zeros_(parameter)
        else:
            initialization.copy_(parameter, _drawn(parameter, role, scheme, config).to(parameter.dtype))
            padding = getattr(module, "padding_idx", None)
            if padding is not None:
                parameter.data[padding] = 0.0


def _drawn(parameter: torch.Tensor, role: str, scheme: str, config: Any) -> torch.Tensor:
    """Numbers for a matrix, in float32; those that are there already where the scheme is the normal one."""
    architecture, deviation = config.architecture, config.initializer_range
    values = parameter.detach().float()
    if scheme == "truncated_normal":
        limit = TRUNCATION * deviation
        values = nn.init.trunc_normal_(torch.empty_like(values), std=deviation, a=-limit, b=limit)
    elif role != "embedding" and scheme not in FIXED_SCHEMES:
        values = _by_shape(values, scheme)
    if scheme == "scaled_normal" and role == "output":
        values = values * (2 * config.num_hidden_layers) ** -0.5
    width = width_multiplier(architecture)
    if role == "router":
        # Its inputs grow and its outputs don't.
        return values * (1 / width if scheme in FIXED_SCHEMES else width**-0.5)
    return values * width**-0.5 if role in HIDDEN_ROLES and scheme in FIXED_SCHEMES else values


def _by_shape(values: torch.Tensor, scheme: str) -> torch.Tensor:
    """A draw whose size follows from the matrix's shape; (out, in), or (out, in, taps) of a convolution."""
    drawn = torch.empty_like(values)
    if scheme == "orthogonal":
        return nn.init.orthogonal_(drawn)
    if scheme == "lecun_normal":
        return nn.init.normal_(drawn, std=values[0].numel() ** -0.5)
    return nn.init.xavier_normal_(drawn) if scheme == "xavier_normal" else nn.init.xavier_uniform_(drawn)
