"""Integrators as stages: their formulas, what they share, what each evaluation keeps, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.components.integrator import DiscreteIntegrator, ODEIntegrator
from eulerstack.hf.integration import StageOutput
from eulerstack.hf.masks import create_masks
from eulerstack_mixers.reference import integrators as reference
from tests.model.mixers.integrators import VARIANTS, stage, staged
from tests.model.specs import built, tokens

FORMULAS = {"discrete": reference.discrete, "ode_euler": reference.ode_euler, "ode_rk4": reference.ode_rk4}
EVALUATIONS = {"discrete": 1, "ode_euler": 1, "ode_rk4": 4}


def layers_alone(model: Any) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """The layers of a model's only stage as functions of a whole sequence (time, d_model)."""
    base = model.model

    def alone(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(states: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(len(states))[None]
            mask = create_masks(base.config, states[None], None, None, positions)[base.layer_types[0]]
            rotation = base.rotary_embs[0](states[None], positions)
            return layer(states[None], attention_mask=mask, position_embeddings=rotation)[0]

        return run

    return [alone(layer) for layer in base.layers[0].layers]


@pytest.mark.parametrize("output", ["token", "hidden"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_stage_computes_its_formula_forward_and_backward(kind: str, output: str) -> None:
    model = built(staged(stage(kind, 3, output=output))).double()
    ids = tokens(batch=1, time=7)
    seen: list[torch.Tensor] = []
    model.model.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
    model(ids, use_cache=False)
    (actual,) = seen
    start = model.model.embed_tokens(ids)[0]
    expected = FORMULAS[kind](start, layers_alone(model), 3)
    if output == "hidden":
        weight = model.model.layers[0].integrator.output.norm.weight
        expected = expected / (expected.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(actual, expected, atol=1e-11, rtol=1e-11)
    weights = [parameter for name, parameter in model.named_parameters() if "model.norm" not in name]
    gradients = [torch.autograd.grad(each.sin().sum(), weights) for each in (actual, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("kind", "order"), [("ode_euler", 1), ("ode_rk4", 4)])
def test_a_stage_converges_at_the_order_of_its_method(kind: str, order: int) -> None:
    ids = tokens(batch=1, time=5)

    def logits(steps: int, kind: str = kind) -> torch.Tensor:
        model = es.compile_to_hf_model(es.normalize_to_ir(staged(stage(kind, steps))), seed=1).double()
        with torch.no_grad():
            # A norm is steep near zero; at the size of a usual stream it is smooth.
            model.model.embed_tokens.weight.mul_(10.0)
            return model(ids, use_cache=False).logits

    solution = logits(64, "ode_rk4")
    coarse, fine = (float((logits(steps) - solution).norm()) for steps in (4, 8))
    assert coarse / fine == pytest.approx(2**order, rel=0.05)


def test_one_step_of_euler_is_the_layer() -> None:
    ode, layer = built(staged(stage("ode_euler", 1))), built(staged("decoder"))
    layer.model.layers[0].load_state_dict(ode.model.layers[0].layers[0].state_dict())
    torch.testing.assert_close(ode(tokens()).logits, layer(tokens()).logits, atol=1e-5, rtol=1e-5)


def test_copies_are_layers_and_steps_of_an_ode_share_theirs() -> None:
    counts = {
        kind: [es.count_parameters(es.normalize_to_ir(staged(stage(kind, steps)))) for steps in (1, 2, 5)]
        for kind in FORMULAS
    }
    assert counts["ode_euler"] == counts["ode_rk4"] == [counts["discrete"][0]] * 3
    one, two, five = counts["discrete"]
    assert five - one == 4 * (two - one) > 0
    plain = es.count_parameters(es.normalize_to_ir(staged("decoder", "decoder")))
    assert two == plain


@pytest.mark.parametrize("name", VARIANTS)
def test_the_declared_parameters_are_the_built_ones(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert sum(parameter.numel() for parameter in built(VARIANTS[name]).parameters()) == es.count_parameters(ir)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("context", [1, 4, 13])
def test_every_evaluation_keeps_its_state(name: str, context: int) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    with torch.no_grad():
        cache = built(VARIANTS[name])(tokens(batch=3, time=context), use_cache=True).past_key_values
    held = sum(
        layer.state_bytes if hasattr(layer, "state_bytes") else layer.keys.nbytes + layer.values.nbytes
        for layer in cache.layers
    )
    assert held == model_cost(ir).cache_bytes(context, batch=3)
    assert len(cache.layers) == len(compile_ir(ir)["layer_types"])


@pytest.mark.parametrize("kind", FORMULAS)
def test_flops_and_state_count_every_evaluation(kind: str) -> None:
    one = model_cost(es.normalize_to_ir(staged("decoder")))
    head = model_cost(es.normalize_to_ir(staged("decoder"))).head.flops_per_token
    cost = model_cost(es.normalize_to_ir(staged(stage(kind, 3))))
    times = 3 * EVALUATIONS[kind]
    for phase in ("decode", "prefill"):
        layer = one.flops_per_token(20, phase) - head  # type: ignore[arg-type]
        assert cost.flops_per_token(20, phase) - head == pytest.approx(times * layer)  # type: ignore[arg-type]
    assert cost.cache_bytes(20) == times * one.cache_bytes(20)


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_body_is_evaluated_as_often_as_it_says(kind: str) -> None:
    model = built(staged(stage(kind, 3)))
    calls = []
    for layer in model.model.layers[0].layers:
        layer.mixer.register_forward_pre_hook(lambda module, given: calls.append(module))
    model(tokens())
    assert len(calls) == 3 * EVALUATIONS[kind]


def test_integrators_by_hand_give_the_numbers_of_the_stages() -> None:
    for kind, method in (("ode_euler", "euler"), ("ode_rk4", "rk4")):
        model = built(staged(stage(kind, 2))).double()
        (layer,) = layers_alone(model)

        class Body(torch.nn.Module):
            def forward(self, state: torch.Tensor, layer: Any = layer) -> torch.Tensor:
                return layer(state)

        seen: list[torch.Tensor] = []
        model.model.norm.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0][0]))
        ids = tokens(batch=1, time=6)
        model(ids, use_cache=False)
        start = model.model.embed_tokens(ids)[0]
        torch.testing.assert_close(ODEIntegrator(Body(), 2, method)(start), seen[0], atol=1e-12, rtol=1e-12)
    twice = DiscreteIntegrator(Body(), 2)(start)
    torch.testing.assert_close(twice, layer(layer(start)), atol=1e-12, rtol=1e-12)


def test_a_thought_has_the_size_of_its_norms_weight() -> None:
    class Config:
        hidden_size = 36
        architecture = {"model": {"norm_eps": 1e-5}}

    output = StageOutput(Config(), "hidden")
    output.norm.initialize(0.02)
    state = 100 * torch.randn(2, 3, 36)
    torch.testing.assert_close(output(state).square().mean(-1), torch.ones(2, 3), atol=1e-4, rtol=0)
    assert torch.equal(StageOutput(Config(), "token")(state), state)


@pytest.mark.parametrize("name", ["ode_rk4", "ode_euler_states"])
def test_the_whole_forward_and_a_static_step_compile_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        expected, generated = model(ids, use_cache=False).logits, model.generate(ids, **options)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)
        model.forward = torch.compile(model.forward, fullgraph=True, backend="eager")
        assert torch.equal(model.generate(ids, cache_implementation="static", **options), generated)
    torch._dynamo.reset()
