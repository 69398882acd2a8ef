"""A usage probe guesses which expert or branch made an output; its loss trains the probe and the units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError
from eulerstack.hf import optimizer_groups, parameter_roles
from tests.model.mixers.branched import ATTENTION, NEAR, TOP_1
from tests.model.mixers.branched import spec as branched
from tests.model.mixers.moe import spec as moe
from tests.model.specs import built, changed, tiny_spec, tokens
from tests.model.test_export import offline

COEF = "training_hints.differentiation_objectives.usage_probe_coef"
QUIET = {"load_balance_coef": 0.0}


def probed(spec: dict[str, Any], coefficient: float = 0.5, **changes: Any) -> dict[str, Any]:
    return changed(spec, {COEF: coefficient, **changes})


SPECS = {
    "moe": moe(**QUIET),
    "shared": moe(**QUIET, shared_experts=1, router="sigmoid"),
    "ungated": moe(**QUIET, gated=False, activation="relu2"),
    "branched": branched(near=NEAR, far=ATTENTION),
    "branched_chosen": branched(TOP_1, near=NEAR, far=ATTENTION),
}
PROBES = {name: "mixer.usage_probe" if name.startswith("branched") else "ffn.experts.usage_probe" for name in SPECS}


def outputs_of_experts(ffn: Any, states: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """(output, expert) of every choice of every token, one product after another."""
    experts, found = ffn.experts, []
    _, _, chosen = ffn.router(states)
    for state, mine in zip(states, chosen.tolist(), strict=True):
        for expert in mine:
            inner = getattr(experts, experts.first)[expert] @ state
            if experts.gated:
                gate, up = inner.chunk(2)
                inner = experts.activation(gate) * up
            else:
                inner = experts.activation(inner)
            found.append((experts.down_proj[expert] @ inner, expert))
    return found


def outputs_of_branches(mixer: Any, given: dict[str, Any]) -> list[tuple[torch.Tensor, int]]:
    """(output, branch) of every choice of every token."""
    states = given["hidden_states"]
    _, chosen = mixer.selector(states)
    found = []
    for index, name in enumerate(mixer.names):
        own = {**given, "position_embeddings": given["position_embeddings"][index],
               "attention_mask": given["attention_mask"][index]}  # fmt: skip
        output = mixer.get_submodule(f"branch_{name}")(**own)
        output = output[0] if isinstance(output, tuple) else output
        found += [(row, index) for row, is_chosen in zip(output[0], chosen[0, :, index], strict=True) if is_chosen]
    return found


def naive(probe: Any, found: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """The mean cross-entropy, in float64."""
    losses = [
        -(probe.weight.double() @ output.double() + probe.bias.double()).log_softmax(0)[unit] for output, unit in found
    ]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", SPECS)
def test_the_loss_is_the_mean_cross_entropy_of_guesses_forward_and_backward(name: str) -> None:
    model, ids = built(probed(SPECS[name], 0.5)).double().train(), tokens(1, 9)
    word, _, _ = PROBES[name].partition(".")
    expected: list[torch.Tensor] = []

    def compare(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if word == "mixer":
            found = outputs_of_branches(module, {"hidden_states": args[0], **kwargs})
            expected.append(naive(module.usage_probe, found))
        else:
            found = outputs_of_experts(module, args[0].flatten(0, -2))
            expected.append(naive(module.experts.usage_probe, found))

    for layer in model.model.layers:
        layer.get_submodule(word).register_forward_hook(compare, with_kwargs=True)
    output = model(ids, labels=ids, use_cache=False)
    assert len(expected) == 3
    torch.testing.assert_close(output.aux_loss, 0.5 * sum(expected), atol=1e-12, rtol=1e-12)
    ours, theirs = (
        torch.autograd.grad(
            each, list(model.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for each in (output.aux_loss, 0.5 * sum(expected))
    )
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-9)
    plain = model.eval()(ids, labels=ids, use_cache=False).loss
    torch.testing.assert_close(output.loss, plain + output.aux_loss)


@pytest.mark.parametrize("name", SPECS)
def test_outside_of_training_a_probe_does_nothing(name: str) -> None:
    ids = tokens(2, 9)
    with torch.no_grad():
        with_probe, without = built(probed(SPECS[name])), built(SPECS[name])
        assert torch.equal(with_probe(ids, labels=ids).loss, without(ids, labels=ids).loss)
        assert torch.equal(with_probe.train()(ids).logits, without.train()(ids).logits)


@pytest.mark.parametrize("name", SPECS)
def test_the_gradient_reaches_the_probe_and_the_units(name: str) -> None:
    model, ids = built(probed(SPECS[name])).train(), tokens(2, 9)
    model(ids, labels=ids, use_cache=False).aux_loss.backward()
    reached = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
    last = "model.layers.2."
    assert {f"{last}{PROBES[name]}.weight", f"{last}{PROBES[name]}.bias"} <= reached
    units = (
        ["mixer.branch_near.o_proj.weight", "mixer.branch_far.o_proj.weight"]
        if name.startswith("branched")
        else ["ffn.experts.down_proj"]
    )
    assert {f"{last}{each}" for each in units} <= reached
    # How the last layer's units are weighed is no concern of the probe.
    assert not any("selector" in each or "router" in each for each in reached if each.startswith(last))


@pytest.mark.parametrize("name", ["moe", "branched_chosen"])
def test_checkpointing_counts_the_loss_once(name: str) -> None:
    ids = tokens(2, 9)
    gradients = []
    for checkpointing in (False, True):
        model = built(probed(SPECS[name], **{"training_hints.checkpointing": checkpointing})).train()
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({each: value.grad for each, value in model.named_parameters()})
    for each in gradients[0]:
        torch.testing.assert_close(gradients[0][each], gradients[1][each])


STREAM = [{"template": "decoder"}]
AROUND = {
    "parallel": {
        "layer_schedule": [
            {
                "parallel": [{"stream": "a", "body": STREAM}, {"stream": "b", "body": STREAM}],
                "merge": {"type": "add"},
            }
        ]
    },
    "steps": {"layer_schedule": [{"integrator": {"type": "discrete", "steps": 2, "body": "decoder"}}]},
    "ode": {"layer_schedule": [{"integrator": {"type": "ode_euler", "steps": 2, "body": "decoder"}}]},
    "depth": {"layer_schedule.0.depth_gating": {"enabled": True, "capacity": 0.5}},
    "streams": {"layer_templates.decoder.residual": {"type": "hyper_connection", "hyper": {"expand": 2}}},
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["moe", "branched_chosen"])
def test_whatever_is_around_a_layer_its_probe_is_heard(name: str, around: str) -> None:
    spec, ids = changed(SPECS[name], AROUND[around]), tokens(2, 8)
    losses = []
    for coefficient in (0.5, 1.0):
        ir = es.normalize_to_ir(probed(spec, coefficient))
        model = built(probed(spec, coefficient)).train()
        assert sum(each.numel() for each in model.parameters()) == model_cost(ir).total
        losses.append(model(ids, labels=ids, use_cache=False).aux_loss)
    probes = {each: value for each, value in model.named_parameters() if "usage_probe.weight" in each}
    losses[1].backward()
    assert probes and all(value.grad is not None and value.grad.any() for value in probes.values())
    plain = built(spec).train()(ids, labels=ids, use_cache=False).aux_loss
    one = losses[0] - (0.0 if plain is None else plain)
    torch.testing.assert_close(losses[1] - losses[0], one)


@pytest.mark.parametrize("name", ["moe", "branched"])
def test_padding_does_not_count(name: str) -> None:
    model, ids = built(probed(SPECS[name])).train(), tokens(1, 9)
    alone = model(ids, labels=ids, use_cache=False).aux_loss
    padded = torch.cat((torch.zeros(1, 4, dtype=torch.long), ids), 1)
    mask = (torch.arange(13) >= 4).long()[None]
    labels = padded.masked_fill(mask == 0, -100)
    found = model(padded, attention_mask=mask, labels=labels, use_cache=False).aux_loss
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ["drop", "overflow", "pad"])
def test_what_experts_have_no_room_for_does_not_count(policy: str) -> None:
    model = built(probed(moe(**QUIET, capacity_factor=0.5, capacity_drop_policy=policy))).train()
    ids = tokens(2, 12)
    loss = model(ids, labels=ids, use_cache=False).aux_loss
    other = built(probed(moe(**QUIET, capacity_factor=0.5, capacity_drop_policy="drop"))).train()
    same = torch.allclose(loss, other(ids, labels=ids, use_cache=False).aux_loss, atol=1e-5)
    assert same == (policy != "overflow") and torch.isfinite(loss)


def test_training_makes_experts_tell_themselves_apart() -> None:
    torch.manual_seed(0)
    model = es.compile_to_hf_model(es.normalize_to_ir(probed(moe(**QUIET), 1.0))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids, losses = tokens(4, 16), []
    for _ in range(30):
        output = model(ids, labels=ids, use_cache=False)
        optimizer.zero_grad()
        output.aux_loss.backward()
        optimizer.step()
        losses.append(float(output.aux_loss.detach()))
    # It begins without an opinion: the entropy of six experts, three times.
    assert abs(losses[0] - 3 * torch.tensor(6.0).log()) < 1e-5 and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", SPECS)
def test_cost_counts_the_probe_among_the_parameters_that_no_token_touches(name: str) -> None:
    plain, with_probe = (es.normalize_to_ir(spec) for spec in (SPECS[name], probed(SPECS[name])))
    units = 2 if name.startswith("branched") else 6
    ours, theirs = model_cost(with_probe), model_cost(plain)
    assert ours.total - theirs.total == 3 * units * (36 + 1)
    assert ours.active == theirs.active
    assert sum(each.numel() for each in es.compile_to_hf_model(with_probe).parameters()) == ours.total


def test_a_probe_has_a_role_of_its_own() -> None:
    hints = {"training_hints.scaling": {"parametrization": "mup", "base_width": 12}}
    hints["training_hints.router_lr_multiplier"] = 7.0
    model = es.compile_to_hf_model(es.normalize_to_ir(probed(moe(), **hints)))
    roles = parameter_roles(model)
    place = "model.layers.0.ffn.experts.usage_probe"
    assert (roles[f"{place}.weight"], roles[f"{place}.bias"]) == ("probe", "vector")
    rates = {group["role"]: group["lr"] for group in optimizer_groups(model) if group["optimizer"] == "adamw"}
    assert rates["probe"] == rates["hidden"] == pytest.approx(3e-4 / 3)
    assert rates["router"] == pytest.approx(7 * 3e-4 / 3)


def test_the_directory_holds_the_probe_and_only_then_its_code(tmp_path: Path) -> None:
    es.compile_to_directory(es.normalize_to_ir(probed(moe())), tmp_path / "probed")
    es.compile_to_directory(es.normalize_to_ir(moe()), tmp_path / "plain")
    texts = [(tmp_path / name / "modeling_eulerstack.py").read_text(encoding="utf-8") for name in ("probed", "plain")]
    assert ["class UsageProbe" in text for text in texts] == [True, False]
    model = es.compile_to_hf_model(es.normalize_to_ir(probed(moe())))
    found = offline(tmp_path / "probed", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(torch.arange(24).reshape(2, 12)).logits)


@pytest.mark.parametrize(
    "spec", [tiny_spec(), moe(experts=1, top_k=1)], ids=["nothing is routed", "one expert is no choice"]
)
def test_a_probe_with_nothing_to_tell_apart_is_refused(spec: dict[str, Any]) -> None:
    es.validate_v2(changed(spec, {COEF: 0}))
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(probed(spec))
    (problem,) = caught.value.diagnostics
    assert problem.path == COEF and "usage_probe_coef: 0" in problem.fix.render(str)


def test_a_template_that_no_layer_has_does_not_route() -> None:
    spec = changed(tiny_spec(), {"layer_templates.spare": moe()["layer_templates"]["decoder"], COEF: 0.1})
    with pytest.raises(CompatibilityError, match="probe"):
        es.validate_v2(spec)


def test_a_probe_may_read_the_experts_of_the_heads_own_layers() -> None:
    routed = moe(**QUIET)["layer_templates"]["decoder"]
    head = {"type": "causal_lm_mtp", "mtp": {"head_template": "routed"}}
    spec = changed(tiny_spec(), {"layer_templates.routed": routed, "head": head, COEF: 0.5})
    model, ids = built(spec).train(), tokens()
    assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(es.normalize_to_ir(spec))
    assert model(ids, labels=ids, use_cache=False).aux_loss > 0.1
