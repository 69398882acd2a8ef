"""The linear layers that primitives declare are those of their modules, in every variant."""

from __future__ import annotations

import pytest
from torch import nn

import eulerstack as es
from eulerstack.compiler.initial import build_on_meta
from eulerstack.hf.roles import parameter_roles
from eulerstack.ir.linears import declared_linears
from eulerstack.plugins.manager import get_registry
from tests.model.variants import VARIANTS

# Every shape that declarations tell apart, in every kind of stage and wrapper.
CHOSEN = (
    "biases", "head_dim", "qk_norm_head", "layernorm", "mlp", "latent", "nsa", "hca", "branched_hybrid", "gated_hybrid",
    "ode_rk4_branched", "discrete", "parallel_attention", "mtp", "retnet", "retnet_head_dim", "retnet_narrow_values",
    "retnet_hybrid", "width_hybrid",
)  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_a_declared_linear_layer_is_there_with_its_sizes_and_its_role(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    model = build_on_meta(ir)
    roles = parameter_roles(model)
    for linear, _ in declared_linears(ir, get_registry()):
        module = model.get_submodule(linear.name)
        assert type(module) is nn.Linear
        assert (module.in_features, module.out_features) == (linear.in_features, linear.out_features)
        assert (module.bias is not None) == linear.bias
        assert roles[f"{linear.name}.weight"] == linear.role
        assert linear.template == ir.layers[linear.layer].template
