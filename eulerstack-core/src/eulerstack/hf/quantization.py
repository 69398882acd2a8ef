"""Quantization-aware training with torchao: linear layers compute with rounded weights, gradients pass as if unrounded.

    model = prepare_quant_aware_training(model)     # before the optimizer is made
    … training …
    model = finish_quant_aware_training(model)      # plain linear layers again, with the rounded weights

Weights alone are rounded. int8: symmetric, one scale a row; fp8: float8_e4m3fn, one scale a row; fp4: MXFP4, one scale
for 32 weights of a row, which torchao's own training layers offer only together with rounded activations, so its number
format is used through `Mxfp4Linear`. What is no nn.Linear (experts as one tensor, convolutions), the embedding and the
readout stay as they are.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from eulerstack.errors import CompatibilityError, Diagnostic, Message, msg
from eulerstack.hf.optimizers import compiled_model
from eulerstack.hf.roles import parameter_roles

SEE = "reference/errors.md#quantization"
# Weights that share a scale.
MX_BLOCK = 32


def prepare_quant_aware_training(model: nn.Module) -> nn.Module:
    """Makes the linear layers that `compatibility.quant_aware_training` names round their weights; returns the model.

    Errors: CompatibilityError without torchao, where the spec does not ask for it, and for fp4 with a width that is no
    multiple of 32.
    """
    inner = compiled_model(model)
    plan = rounding_plan(inner)
    if find_spec("torchao") is None:
        raise _refused(msg("torchao is not installed"), msg("pip install torchao"), "enabled")
    for name, dtype in plan.items():
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, _rounding(inner.get_submodule(name), dtype))
    return model


def rounding_plan(model: nn.Module) -> dict[str, str]:
    """What the spec asks for: the number type by the name of each linear layer that is to round its weights.

    Errors: as `prepare_quant_aware_training`; torchao is not needed.
    """
    words = model.config.architecture["compatibility"]["quant_aware_training"]
    if not words["enabled"]:
        raise _refused(msg("the spec does not ask for this training"), msg("Type enabled: true"), "enabled")
    plan = {name: words["dtype"] for name in _linear_layers(model) if words["scope"] in ("all", _part_of(name))}
    if not plan:
        raise _refused(msg("no linear layer lies in this scope"), msg("Type scope: all"), "scope")
    for name, dtype in plan.items():
        width = model.get_submodule(name).in_features
        if dtype == "fp4" and width % MX_BLOCK:
            what = msg("fp4 shares a scale among 32 weights, but {name} has rows of {width}", name=name, width=width)
            raise _refused(what, msg("Choose widths that 32 divides, or type dtype: int8"), "dtype")
    return plan


def finish_quant_aware_training(model: nn.Module) -> nn.Module:
    """Replaces each rounding layer by a plain one with its rounded weights, in `dequant_to`; returns the model.

    What it computes is what was trained; in float32 exactly, in other types within their rounding.
    """
    inner = compiled_model(model)
    compatibility = inner.config.architecture["compatibility"]
    words = compatibility["quant_aware_training"]
    dtype = getattr(torch, words["dequant_to"] or inner.config.architecture["model"]["dtype"])
    for name, module in list(inner.named_modules()):
        if getattr(module, "weight_fake_quantizer", None) is None:
            continue
        linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        with torch.no_grad():
            linear.weight = nn.Parameter(module.weight_fake_quantizer(module.weight).to(module.weight.dtype))
        linear.bias = module.bias
        linear._noted_roles = getattr(module, "_noted_roles", {})
        linear.train(module.training)
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, linear)
    safe = {"norm", "router"} if compatibility["dtype_policy"] == "layered_safe" else set()
    roles = parameter_roles(inner)
    for name, parameter in inner.named_parameters():
        if roles[name] not in safe:
            parameter.data = parameter.data.to(dtype)
    inner.config.dtype = dtype
    return model


def _linear_layers(model: nn.Module) -> list[str]:
    """Names of the hidden linear layers inside the model's layers, those of other kinds of modules left out."""
    roles = parameter_roles(model)
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _part_of(name) and roles[f"{name}.weight"] != "router"
    ]


def _part_of(name: str) -> str:
    """ "mixer" or "ffn": the block of a layer that a module lies in; "" for what lies in neither."""
    return next((part for part in name.split(".") if part in ("mixer", "ffn")), "")


def _rounding(linear: nn.Linear, dtype: str) -> nn.Linear:
    """The layer that rounds, with the same parameters."""
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.qat import FakeQuantizedLinear, Float8FakeQuantizeConfig, IntxFakeQuantizeConfig

    if dtype == "int8":
        config: Any = IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
        made = FakeQuantizedLinear.from_linear(linear, weight_config=config)
    elif dtype == "fp8":
        config = Float8FakeQuantizeConfig(torch.float8_e4m3fn, PerRow())
        made = FakeQuantizedLinear.from_linear(linear, weight_config=config)
    else:
        made = Mxfp4Linear(linear)
    made._noted_roles = getattr(linear, "_noted_roles", {})
    return made.train(linear.training)


class Mxfp4Rounding(nn.Module):
    """Weights as torchao's MXFP4 holds them; the gradient passes unchanged. (out, in) -> (out, in)"""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        from torchao.prototype.mx_formats.mx_tensor import MXTensor

        with torch.no_grad():
            stored = MXTensor.to_mx(weight.detach().contiguous(), torch.float4_e2m1fn_x2, MX_BLOCK)
            step = stored.dequantize(weight.dtype) - weight
        return weight + step


class Mxfp4Linear(nn.Linear):
    """A linear layer whose weights are rounded to MXFP4."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.weight_fake_quantizer = Mxfp4Rounding()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(hidden_states, self.weight_fake_quantizer(self.weight), self.bias)


def _refused(what: Message, fix: Message, word: str) -> CompatibilityError:
    path = f"compatibility.quant_aware_training.{word}"
    return CompatibilityError([Diagnostic("CompatibilityError", what, fix, SEE, path)])
