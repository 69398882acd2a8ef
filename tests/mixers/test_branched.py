"""Branches: what they compute, what each keeps, what they cost, and what can be one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.compiler.compile import compile_ir, tensor_parallel_plan
from eulerstack.compiler.cost import model_cost
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompatibilityError, ValidationError
from eulerstack.hf.masks import create_masks
from eulerstack.ir.printer import from_data, print_ir
from eulerstack.plugins import CacheLayer, Held, Primitive
from eulerstack.plugins.contributions import PluginFault, collect, register
from eulerstack_mixers.reference.branched import branched
from tests.model.mixers.branched import ATTENTION, BRANCHED, HYENA, MAMBA, MIXER, NEAR, RETNET, TOP_1, VARIANTS, spec
from tests.model.specs import built, changed, tiny_spec, tokens

KINDS = {"attention": NEAR, "retnet": RETNET, "mamba": MAMBA, "hyena": HYENA}
SELECTORS: dict[str, dict[str, Any]] = {
    "gate": {"type": "learned_gate"},
    "one": TOP_1,
    "two": {"type": "top_k", "top_k": 2},
}


def first_mixer(model: Any, hidden_states: torch.Tensor) -> dict[str, Any]:
    """The arguments by which a model calls the mixer of its first layer, without a cache."""
    base = model.model
    positions = torch.arange(hidden_states.shape[1])[None]
    masks = create_masks(base.config, hidden_states, None, None, positions)
    slots = base.slots_of_stages[0]
    ropes = [base.rope_of_slot[slot] for slot in slots]
    return {
        "position_embeddings": [None if r is None else base.rotary_embs[r](hidden_states, positions) for r in ropes],
        "attention_mask": [masks[base.layer_types[slot]] for slot in slots],
    }


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_the_layer_is_the_naive_sum_forward_and_backward(selector: dict[str, Any]) -> None:
    model = built(spec(selector, slow=RETNET, near=NEAR, ssm=MAMBA)).double()
    mixer = model.model.layers[0].mixer
    states = torch.randn(7, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    given = first_mixer(model, states[None])

    def alone(index: int, name: str) -> Any:
        def run(states: torch.Tensor) -> torch.Tensor:
            words = {word: value[index] for word, value in given.items()}
            output = mixer.get_submodule(f"branch_{name}")(states[None], **words)
            return (output[0] if isinstance(output, tuple) else output)[0]

        return run

    branches = {name: alone(index, name) for index, name in enumerate(["near", "slow", "ssm"])}
    params = model.config.architecture["blocks"][0]["mixer"]["params"]
    expected = branched(states, dict(mixer.named_parameters()), params, branches)
    actual = mixer(states[None], **given)[0]
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)
    weights = [states, *mixer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(y.sin().sum(), weights) for y in (actual, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    assert torch.autograd.grad(mixer(states[None], **given).sum(), mixer.selector.weight)[0].abs().max() > 1e-3


def test_choosing_all_branches_is_the_gate() -> None:
    gate, every = built(spec()), built(spec({"type": "top_k", "top_k": 2}))
    ids = tokens()
    assert torch.equal(gate(ids).logits, every(ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_whose_branches_are_twins_is_the_mixer_alone(kind: str) -> None:
    """Shares sum to one, so two equal branches are one: rotation, mask and cache of each are its own and right."""
    twins, alone = built(spec(a=KINDS[kind], b=KINDS[kind])), built(changed(tiny_spec(), {MIXER: KINDS[kind]}))
    with torch.no_grad():
        for name, parameter in alone.named_parameters():
            for branch in "ab":
                twin = name.replace(".mixer.", f".mixer.branch_{branch}.")
                twins.get_parameter(twin).copy_(parameter)
    ids = tokens()
    torch.testing.assert_close(twins(ids).logits, alone(ids).logits, atol=1e-5, rtol=1e-5)
    first = twins(ids[:, :6], use_cache=True)
    rest = twins(ids[:, 6:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, alone(ids).logits[:, 6:], atol=2e-5, rtol=1e-5)


def test_a_token_that_chooses_one_branch_takes_nothing_from_the_other() -> None:
    model = built(spec(TOP_1)).eval()
    mixer = model.model.layers[-1].mixer
    shares: list[torch.Tensor] = []
    mixer.selector.register_forward_hook(lambda module, given, output: shares.append(output[1]))
    ids = tokens(batch=3)
    before = model(ids).logits
    with torch.no_grad():
        for parameter in mixer.branch_slow.parameters():
            parameter.mul_(1.7)
    chose_slow = shares[0][..., 1] > 0
    assert 0 < chose_slow.sum() < chose_slow.numel()
    changed_tokens = (model(ids).logits - before).abs().amax(-1) > 1e-6
    assert torch.equal(changed_tokens, chose_slow)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("context", [1, 4, 13])
def test_each_branch_keeps_what_explain_says(name: str, context: int) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    with torch.no_grad():
        cache = built(VARIANTS[name])(tokens(batch=3, time=context), use_cache=True).past_key_values
    prices = [price for layer in model_cost(ir).layers for price in layer.slots]
    assert len(cache.layers) == len(prices) == len(compile_ir(ir)["layer_types"])
    for layer, price in zip(cache.layers, prices, strict=True):
        held = layer.state_bytes if hasattr(layer, "state_bytes") else layer.keys.nbytes + layer.values.nbytes
        kept = context if price.state_window is None else min(context, price.state_window)
        assert held == 3 * (price.state_bytes_fixed + kept * price.state_bytes_per_token)


def test_a_token_touches_and_pays_for_every_branch() -> None:
    chosen, gate = (model_cost(es.normalize_to_ir(spec(selector))) for selector in (TOP_1, {}))
    assert chosen.total == chosen.active == gate.active
    assert chosen.flops_per_token(50) == gate.flops_per_token(50)
    layer = chosen.layers[0]
    assert layer.mixer.params == 2 * 36 and layer.mixer.flops_per_token == 4 * 36
    alone = [model_cost(es.normalize_to_ir(changed(tiny_spec(), {MIXER: mixer}))).layers[0] for mixer in (NEAR, RETNET)]
    assert [price.params for price in layer.held] == [each.mixer.params for each in alone]


def test_the_order_of_branches_has_no_meaning() -> None:
    first, second = es.normalize_to_ir(spec(a=RETNET, b=NEAR)), es.normalize_to_ir(spec(b=NEAR, a=RETNET))
    assert first == second and print_ir(first) == print_ir(second)
    assert compile_ir(first) == compile_ir(second)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_ir_is_printed_and_read_back(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir
    assert from_data(compile_ir(ir)["architecture"]) == ir


def test_the_config_names_a_slot_for_each_branch() -> None:
    config = compile_ir(es.normalize_to_ir(VARIANTS["branched_hybrid"]))
    assert config["num_hidden_layers"] == 4 and len(config["layer_types"]) == 8
    assert config["layer_types"][1:4] == ["full_attention", "sliding_attention", "eulerstack_state"]


@pytest.mark.parametrize("name", ["branched", "branched_attention", "branched_hybrid"])
def test_the_whole_forward_and_a_static_step_compile_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        expected, generated = model(ids, use_cache=False).logits, model.generate(ids, **options)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)
        model.forward = torch.compile(model.forward, fullgraph=True, backend="eager")
        assert torch.equal(model.generate(ids, cache_implementation="static", **options), generated)
    torch._dynamo.reset()


def test_branches_of_attention_can_be_rolled_back_and_states_say_that_they_can_not() -> None:
    assistant = built(changed(tiny_spec(), {"layer_schedule.0.repeat": 1}))
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    model = built(VARIANTS["branched_attention"])
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), model.generate(ids, **options))
    with pytest.raises((RuntimeError, ValueError), match="roll|stateful|recurrent|assisted"):
        built(VARIANTS["branched"]).generate(ids, assistant_model=assistant, **options)


def test_attention_in_a_branch_is_split_like_attention_alone() -> None:
    plan = tensor_parallel_plan(es.normalize_to_ir(spec()))
    assert plan["layers.*.mixer.branch_near.q_proj"] == "colwise"
    assert plan["layers.*.mixer.branch_near.o_proj"] == "rowwise"


def test_a_config_with_too_few_slots_is_refused() -> None:
    model = built(spec())
    config = model.config.to_dict()
    config["layer_types"] = config["layer_types"][:3]
    with pytest.raises(Exception, match="3 layer_types for 6 cache slots"):
        type(model.config)(**config)


STATES = {
    "both": ({"a": ATTENTION, "b": MAMBA}, {"kv_cache": True, "ssm_state": True}, None),
    "denied": ({"a": ATTENTION, "b": MAMBA}, {"ssm_state": False}, "ssm_state"),
    "absent": ({"a": ATTENTION, "b": NEAR}, {"ssm_state": True}, "ssm_state"),
    "either": ({"a": MAMBA, "b": RETNET}, {"ssm_state": True, "kv_cache": False}, None),
    "neither": ({"a": RETNET, "b": RETNET}, {"ssm_state": False, "kv_cache": False}, "kv_cache"),
}


@pytest.mark.parametrize(("branches", "state", "wrong"), STATES.values(), ids=STATES)
def test_the_state_words_are_what_branches_keep(branches: Any, state: dict[str, bool], wrong: str | None) -> None:
    said = changed(spec(**branches), {"layer_templates.decoder.state": state})
    if wrong is None:
        es.validate_v2(said)
        return
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(said)
    assert f"layer_templates.decoder.state.{wrong}" in [each.path for each in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"branches": {"a": ATTENTION}}, "branches", "at least 2"),
        ({"branches": {"a b": ATTENTION, "c": RETNET}}, 'branches."a b"', "begin with no digit"),
        ({"branches": {"a": {"type": "attention", "attention": {"windw": 3}}, "c": RETNET}},
         "branches.a.attention.windw", "window"),
        ({"branches": {"a": {"type": "attention", "retnet": {}}, "c": RETNET}}, "branches.a.retnet", "type: retnet"),
        ({"branches": {"a": {"attention": {}}, "c": RETNET}}, "branches.a.type", "Add type"),
        ({"selector.input": "embedding"}, "selector.input", "hidden"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_branch_is_said_there(changes: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(changed(spec(), {f"{BRANCHED}.{word}": value for word, value in changes.items()}))
    (problem,) = caught.value.diagnostics
    assert problem.path == f"{BRANCHED}.{path}" and says in f"{problem.what.render(str)} {problem.fix.render(str)}"


def test_findings_name_the_branch() -> None:
    wide = spec(a={"type": "attention", "attention": {"window": 64}}, b=RETNET)
    (finding,) = [each for each in es.schema.report(es.normalize_to_ir(wide)) if each.rule == "window"]
    assert finding.path == f"{BRANCHED}.branches.a.attention.window"


@pytest.mark.parametrize(
    "words",
    [{"kind": "ffn"}, {"schema": None}, {"cache": lambda params: CacheLayer("x")}],
    ids=lambda words: next(iter(words)),
)
def test_a_holder_must_be_a_mixer_with_a_block_and_no_cache(words: dict[str, Any]) -> None:
    import pluggy

    from eulerstack.plugins import hookimpl, hookspecs

    given = {"kind": "mixer", "schema": {"type": "object"}, "module": "a.b:C", **words}
    primitive = Primitive(name="vendor.acme.pair", summary="two", holds=Held("parts", "Two."), **given)

    class Acme:
        @hookimpl
        def eulerstack_mixers(self) -> list[Primitive]:
            return [primitive] if primitive.kind == "mixer" else []

        @hookimpl
        def eulerstack_ffns(self) -> list[Primitive]:
            return [primitive] if primitive.kind == "ffn" else []

    manager = pluggy.PluginManager("eulerstack")
    manager.add_hookspecs(hookspecs)
    plugin = Acme()
    register(manager, plugin, "acme")
    with pytest.raises(PluginFault) as caught:
        collect(manager, plugin)
    assert "holds other primitives" in caught.value.message.render(str)
