"""What the declaration promises."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, EulerStackError
from eulerstack.ir.printer import print_ir
from eulerstack.plugins.manager import get_registry
from eulerstack_ode.declarations.adaptive import EVALUATIONS
from tests.model.mixers.integrators import stage, staged

PLACE = "layer_schedule[0].integrator"


def adaptive(steps: int = 4, output: str = "token", **block: Any) -> dict[str, Any]:
    """The tiny spec with one adaptive stage of attention."""
    return staged(stage("ode_adaptive", steps, output=output, ode_adaptive=block))


def test_it_comes_from_its_own_distribution() -> None:
    registry = get_registry()
    assert registry.origin(registry.get("integrator", "ode_adaptive"))[0] == "eulerstack-ode"


def test_defaults_are_filled_in_and_printed() -> None:
    ir = es.normalize_to_ir(adaptive())
    params = dict(ir.stages[0].integrator.params)  # type: ignore[union-attr]
    assert params == {"steps": 4, "output": "token", "method": "dopri5", "rtol": 1e-4, "atol": 1e-5}
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir


@pytest.mark.parametrize(
    ("block", "word"),
    [({"method": "rk4"}, "method"), ({"rtol": 0}, "rtol"), ({"atol": -1}, "atol"), ({"tolerance": 1}, "tolerance")],
)
def test_wrong_words_are_refused_where_they_stand(block: dict[str, Any], word: str) -> None:
    with pytest.raises(EulerStackError) as caught:
        es.validate_v2(adaptive(**block))
    assert [each.path for each in caught.value.diagnostics] == [f"{PLACE}.ode_adaptive.{word}"]


@pytest.mark.parametrize("method", EVALUATIONS)
def test_the_price_is_that_of_all_steps(method: str) -> None:
    once = model_cost(es.normalize_to_ir(staged("decoder")))
    cost = model_cost(es.normalize_to_ir(adaptive(5, method=method)))
    head = once.head.flops_per_token
    times = 1 + 5 * EVALUATIONS[method]
    assert cost.total == once.total
    prefill = cost.flops_per_token(20, "prefill") - head
    assert prefill == pytest.approx(times * (once.flops_per_token(20, "prefill") - head))


def test_nothing_is_kept_so_that_a_decoded_token_costs_its_whole_context() -> None:
    cost = model_cost(es.normalize_to_ir(staged("near", stage("ode_adaptive", 2))))
    assert cost.cache_bytes(100) == 0
    assert cost.flops_per_token(30) == cost.prefill_flops(30) - 29 * cost.head.flops_per_token
    assert compile_ir(es.normalize_to_ir(adaptive()))["use_cache"] is False
    assert compile_ir(es.normalize_to_ir(staged(stage("ode_rk4", 2))))["use_cache"] is True


def test_a_thought_has_a_norm() -> None:
    counts = [es.count_parameters(es.normalize_to_ir(adaptive(output=output))) for output in ("hidden", "token")]
    assert counts[0] - counts[1] == 36


def test_the_import_by_the_cores_name_needs_no_torch() -> None:
    program = (
        "import sys, eulerstack.plugins.ode as ode\n"
        "assert ode.ODE_ADAPTIVE.name == 'ode_adaptive'\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_package_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['eulerstack_ode'] = None; import eulerstack.plugins.ode"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install eulerstack-ode" in done.stderr


def test_without_torchdiffeq_a_spec_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from eulerstack.schema import compatibility

    monkeypatch.setattr(compatibility, "is_installed", lambda package: package != "torchdiffeq")
    with pytest.raises(CompatibilityError) as caught:
        es.normalize_to_ir(adaptive())
    (problem,) = caught.value.diagnostics
    assert "pip install torchdiffeq" in problem.fix.render(str)
