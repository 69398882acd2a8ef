"""What is declared is what is built: parameters and cache bytes of real modules."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from eulerstack.compiler.compile import compile_to_hf_model  # noqa: E402
from eulerstack.compiler.cost import count_parameters, model_cost  # noqa: E402
from eulerstack.ir import normalize_to_ir  # noqa: E402
from tests.ir.strategies import Data, decoder, minimal, specs  # noqa: E402


@given(specs())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_declared_parameters_of_any_spec_are_the_built_ones(spec: Data) -> None:
    ir = normalize_to_ir(spec)
    model = compile_to_hf_model(ir)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(ir)


@pytest.mark.parametrize("window", [None, 2, 5, 100])
@pytest.mark.parametrize("context", [1, 4, 5, 12])
def test_the_declared_cache_bytes_are_the_stored_ones(window: int | None, context: int) -> None:
    template = decoder(mixer={"type": "attention", "attention": {"window": window}})
    spec = minimal(model={"n_kv_heads": 2, "dtype": "float32"}, layer_templates={"decoder": template})
    ir = normalize_to_ir(spec)
    model = compile_to_hf_model(ir)
    with torch.no_grad():
        cache = model(torch.zeros(3, context, dtype=torch.long), use_cache=True).past_key_values
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert stored == model_cost(ir).cache_bytes(context, batch=3)
