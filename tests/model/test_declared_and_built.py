"""The claims of the conformance kit about prices and purity, for every variant."""

from __future__ import annotations

import pytest
import torch

from eulerstack.compiler.cost import model_cost
from eulerstack.ir import normalize_to_ir
from eulerstack.testing.accounting import CONTEXTS, check_parameters, check_state
from eulerstack.testing.purity import check_constancy
from tests.model.specs import built
from tests.model.variants import VARIANTS

torch.set_num_threads(1)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_and_bytes_of_a_cache_are_those_that_are_declared(name: str) -> None:
    model, ir = built(VARIANTS[name]), normalize_to_ir(VARIANTS[name])
    check_parameters(model, ir)
    # How many tokens pass through a gate depends on the tokens; what is declared is their share in the long run.
    if any(layer.depth_gating for layer in ir.layers):
        return
    for context in CONTEXTS:
        check_state(model, model_cost(ir), context)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_forward_writes_to_no_parameter_no_buffer_and_no_input(name: str) -> None:
    check_constancy(built(VARIANTS[name]))
