"""What each parameter is for: initial weights, learning rates, optimizers and number types depend on it.

A module may declare it: `parameter_roles = {"q_proj.weight": "query"}`, names relative to the module; the declaration
nearest to the parameter counts. What nobody declares goes by the type of its module:

    hidden     weight of nn.Linear, and of nn.Conv1d without groups: both sides grow with the model's width
    embedding  nn.Embedding
    norm       a module of torch's norms, or whose class is called …Norm
    vector     everything else, whatever its shape: biases, gates, decays, short convolutions

Only by declaration: `query` (hidden, makes queries), `output` (hidden, writes to the residual stream), `router`
(chooses experts, branches or layers, or weighs streams: only its inputs grow), `probe` (guesses where its input comes
from: likewise), `readout` (the head's table).
"""

from typing import Any

import torch
from torch import nn

PARAMETER_ROLES = ("hidden", "query", "output", "router", "probe", "embedding", "readout", "norm", "vector")
# Both sides of these grow with the width.
HIDDEN_ROLES = frozenset({"hidden", "query", "output"})
MATRIX_ROLES = HIDDEN_ROLES | {"router", "probe", "embedding", "readout"}
# What `dtype_policy: layered_safe` keeps in float32.
SAFE_ROLES = frozenset({"norm", "router"})


def default_parameter_role(module: nn.Module, name: str) -> str:
    """The role of a module's own parameter where nothing is declared."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)) or type(module).__name__.endswith("Norm"):
        return "norm"
    if name == "weight" and (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv1d) and module.groups == 1)):
        return "hidden"
    return "vector"


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """The role of every parameter by its name; tied parameters stand under each of their names.

    Errors: ValueError when a module declares a role that there is not.
    """
    modules = list(model.named_modules(remove_duplicate=False))
    roles = {
        f"{prefix}.{name}" if prefix else name: default_parameter_role(module, name)
        for prefix, module in modules
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
    # Parents come before their children, so that the nearest declaration is the last.
    for prefix, module in modules:
        for name, role in getattr(module, "parameter_roles", {}).items():
            if role not in PARAMETER_ROLES:
                raise ValueError(f"{type(module).__name__}.parameter_roles: there is no role {role!r}")
            full = f"{prefix}.{name}" if prefix else name
            if full in roles:
                roles[full] = role
    return roles


def note_parameter_roles(model: nn.Module) -> None:
    """Writes each module's own part of `parameter_roles` into it, for those who see one module at a time."""
    noted: dict[str, dict[str, str]] = {}
    for full, role in parameter_roles(model).items():
        prefix, _, name = full.rpartition(".")
        noted.setdefault(prefix, {})[name] = role
    for prefix, roles in noted.items():
        model.get_submodule(prefix)._noted_roles = roles


def safe_parameters(module: nn.Module, architecture: dict[str, Any]) -> list[str]:
    """Names of a module's own parameters that the architecture keeps in float32 whatever the model's dtype."""
    if architecture["compatibility"]["dtype_policy"] != "layered_safe":
        return []
    return [name for name, role in getattr(module, "_noted_roles", {}).items() if role in SAFE_ROLES]


def keep_in_float32(model: Any) -> None:
    """Makes the parameters that must be float32, and tells transformers which they are when it loads others.

    Buffers that a module lists in `float32_buffers` are float32 whatever the architecture says.
    """
    patterns = set()
    for prefix, module in model.named_modules():
        safe = safe_parameters(module, model.config.architecture)
        for name in safe:
            parameter = module._parameters[name]
            if parameter.dtype in (torch.bfloat16, torch.float16):
                module._parameters[name] = nn.Parameter(parameter.float(), requires_grad=parameter.requires_grad)
        buffers = [name for name in getattr(module, "float32_buffers", ()) if module._buffers.get(name) is not None]
        for name in (*safe, *buffers):
            full = f"{prefix}.{name}" if prefix else name
            # A pattern of the whole name, because transformers looks for it anywhere in a name.
            escaped = full.removeprefix(f"{model.base_model_prefix}.").replace(".", r"\.")
            patterns.add(rf"^(?:{model.base_model_prefix}\.)?{escaped}$")
    model._keep_in_fp32_modules_strict = patterns
