"""The model classes and what training code takes from a spec; only this folder needs torch.

`optimizer_groups`, `create_optimizer`, `training_arguments`, `parameter_roles`, `prepare_quant_aware_training` and
`finish_quant_aware_training` are imported on use.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "optimizer_groups": "optimizers",
    "create_optimizer": "optimizers",
    "training_arguments": "optimizers",
    "parameter_roles": "roles",
    "prepare_quant_aware_training": "quantization",
    "finish_quant_aware_training": "quantization",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
