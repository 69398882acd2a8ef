"""The head of several tokens: its modules, their loss, and the drafts that never change what is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402
from transformers.modeling_layers import MtpLayer  # noqa: E402
from transformers.models.llama.modeling_llama import (  # noqa: E402
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

import eulerstack as es  # noqa: E402
from eulerstack.cli.describe import describe  # noqa: E402
from eulerstack.compiler.compile import compile_ir  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.dsl.source import as_spec, parse_text  # noqa: E402
from eulerstack.errors import CompatibilityError  # noqa: E402
from eulerstack.ir.printer import from_data, print_ir, to_data  # noqa: E402
from eulerstack.testing.training import precise_loss  # noqa: E402
from eulerstack_mixers.modules.drafting import HeadDrafts  # noqa: E402
from eulerstack_mixers.reference.mtp import drafted_hidden_states, multi_token_loss  # noqa: E402
from tests.model.mixers.compressed_attention import CSA  # noqa: E402
from tests.model.mixers.mtp import own_template, spec  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402

WIDTH = 36
MIXER = "layer_templates.decoder.mixer"
VARIANTS = {
    "one": spec(),
    "three": spec(n_predict=3, head_layers=2),
    "template": own_template(n_predict=2),
    "alibi": changed(spec(n_predict=2), {"embedding.positional": "alibi"}),
    "learned": changed(spec(n_predict=2), {"embedding.positional": "learned", "head.tie_weights": False}),
    "window": changed(spec(n_predict=3), {f"{MIXER}.attention.window": 4}),
    "latent": changed(spec(n_predict=2), {f"{MIXER}.attention.latent_dim": 8, "head.logit_softcap": 3.0}),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def without_modules(model: Any, case: dict[str, Any]) -> Any:
    """The model of the same spec with the head of one token, and the same weights."""
    head = {word: value for word, value in case["head"].items() if word != "mtp"}
    plain = built(changed(case, {"head": {**head, "type": "causal_lm"}})).to(next(model.parameters()).dtype)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "predictors" not in key})
    return plain


def dense(name: str) -> dict[str, Any]:
    """The variant without experts, whose losses depend on what else is in the batch."""
    return changed(VARIANTS[name], {"layer_templates.drafts.ffn": {"type": "mlp"}} if name == "template" else {})


def greedy(model: Any, prompt: Any, **words: Any) -> Any:
    options = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": 20, **words}
    return model.generate(prompt, **options)


@every_variant
@torch.no_grad()
def test_modules_never_change_the_logits(name: str) -> None:
    model = built(VARIANTS[name])
    assert torch.equal(model(tokens()).logits, without_modules(model, VARIANTS[name])(tokens()).logits)


@every_variant
def test_modules_and_their_loss_are_the_naive_ones_forward_and_backward(name: str) -> None:
    model = built(VARIANTS[name]).double().train()
    model.loss_function = precise_loss
    weight, ids = model.head.loss_weight, tokens(batch=1, time=9)
    labels = ids.clone()
    labels[0, 5] = -100
    output = model(ids, labels=labels, use_cache=False)
    loss = output.loss - (output.aux_loss or 0.0)
    embeddings = model.model.embed_tokens(ids)[0]
    states = model.model(ids, use_cache=False).last_hidden_state[0]
    further = []
    for depth, predictor in enumerate(model.head.predictors, 1):
        states = drafted_hidden_states(
            states,
            embeddings,
            depth,
            predictor.eh_proj.weight,
            predictor.enorm,
            predictor.hnorm,
            lambda rows, stack=predictor.stack: stack(inputs_embeds=rows[None], use_cache=False).last_hidden_state[0],
        )
        further.append(model.head(states, model.project))
    expected = multi_token_loss(output.logits[0], further, labels[0], weight)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    parameters = list(model.parameters())
    ours, naive = (torch.autograd.grad(each, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
                   for each in (loss, expected))  # fmt: skip
    for one, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def test_a_module_is_that_of_transformers_forward_and_backward() -> None:
    config = LlamaConfig(hidden_size=WIDTH, intermediate_size=50, num_attention_heads=3, num_key_value_heads=1,
                         head_dim=12, rms_norm_eps=1e-5, num_hidden_layers=1)  # fmt: skip
    config._attn_implementation = "eager"
    theirs = MtpLayer(config, LlamaDecoderLayer, LlamaRMSNorm, 0).double()
    predictor = built(spec()).double().head.predictors[0]
    names = {"mtp_block.self_attn": "stack.layers.0.mixer", "mtp_block.mlp": "stack.layers.0.ffn",
             "mtp_block.input_layernorm": "stack.layers.0.mixer_norm", "post_norm": "stack.norm",
             "mtp_block.post_attention_layernorm": "stack.layers.0.ffn_norm"}  # fmt: skip
    ours = predictor.state_dict()
    own = {}
    for name in theirs.state_dict():
        here = name
        for there, ours_name in names.items():
            here = here.replace(there, ours_name)
        own[name] = ours[here]
    assert len(own) == len(ours)
    theirs.load_state_dict(own)
    states, embeddings = (torch.randn(2, 7, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    positions = torch.arange(7)[None]
    mask = torch.full((7, 7), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    rotation = LlamaRotaryEmbedding(config)(states, positions)
    expected = theirs(embeddings, states, rotation, mask, positions, None)
    output = predictor(states, embeddings, None, use_cache=False).last_hidden_state
    # Llama's norms compute in float32 whatever they are given.
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(output)
    for one, other in zip(
        *(torch.autograd.grad((each * probe).sum(), [states, embeddings]) for each in (output, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["three", "template"])
def test_accumulated_gradients_equal_those_of_one_big_batch(name: str) -> None:
    model = built(dense(name)).train()
    ids = tokens(batch=4)
    labels = ids.clone()
    labels[0, 3:12] = -100
    labels[2, :9] = -100
    count = int((labels[:, 1:] != -100).sum())
    whole = model(ids, labels=labels).loss
    whole.backward()
    expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        loss = model(ids[rows], labels=labels[rows], num_items_in_batch=count).loss
        loss.backward()
        total += float(loss.detach())
    assert total == pytest.approx(float(whole.detach()), abs=1e-6)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], atol=1e-6, rtol=1e-5)


@every_variant
def test_packed_sequences_have_the_loss_of_the_separate_ones(name: str) -> None:
    model = built(dense(name)).train()
    first, second = tokens(batch=1, time=9, seed=1), tokens(batch=1, time=7, seed=2)
    positions = torch.cat([torch.arange(9), torch.arange(7)])[None]
    labels = torch.cat([first, second], 1)
    labels[0, 9] = -100
    count = 8 + 6
    packed = model(
        torch.cat([first, second], 1), position_ids=positions, labels=labels, use_cache=False, num_items_in_batch=count
    ).loss
    alone = sum(model(each, labels=each, use_cache=False, num_items_in_batch=count).loss for each in (first, second))
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


ROUTING = {
    "experts": {"ffn": {"type": "moe", "experts": 3, "top_k": 1, "d_expert": 8, "z_loss": 1.0}},
    "branches": {
        "mixer": {
            "type": "branched",
            "branched": {"branches": {"a": {"type": "attention"}, "b": {"type": "retnet"}}, "selector": {}},
        },
    },
    "indexer": {"mixer": {"type": "attention", "attention": CSA}},
}


@pytest.mark.parametrize("kind", ROUTING)
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_what_a_module_routes_for_nothing_counts_in_no_loss(kind: str, form: str) -> None:
    """At a sequence's end a module reads padding, or another sequence, in place of a later token."""
    template = {"mixer": {"type": "attention"}, "ffn": {"type": "mlp"}, **ROUTING[kind]}
    case = changed(
        spec(n_predict=2, head_template="drafts"),
        {"layer_templates.drafts": template, "layer_schedule": [{"template": "drafts"}]},
    )
    probe = {"training_hints.differentiation_objectives.usage_probe_coef": 0.5 if kind != "indexer" else 0.0}
    model = built(changed(case, probe)).double().train()
    ids = tokens(time=9)
    alone = model(ids, labels=ids, use_cache=False).aux_loss
    if form == "padded":
        padded, mask = torch.zeros(2, 13, dtype=torch.long), torch.zeros(2, 13, dtype=torch.long)
        padded[:, :9], mask[:, :9] = ids, 1
        found = model(padded, attention_mask=mask, labels=padded, use_cache=False).aux_loss
    else:
        places = torch.arange(9).repeat(2)[None]
        found = model(ids.view(1, -1), position_ids=places, labels=ids.view(1, -1), use_cache=False).aux_loss
    assert alone > 0.01
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_part_in_the_loss(side: str) -> None:
    model = built(spec(n_predict=2)).train()
    ids = tokens(batch=1, time=11)
    padded, mask, labels = (torch.full((1, 16), fill) for fill in (0, 0, -100))
    place = slice(5, None) if side == "left" else slice(0, 11)
    padded[:, place], mask[:, place], labels[:, place] = ids, 1, ids
    if side == "left":
        # The first token of a padded row is no target of the padding before it.
        labels[:, 5] = -100
    expected = model(ids, labels=ids, use_cache=False).loss
    loss = model(padded, attention_mask=mask, labels=labels, use_cache=False).loss
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_embeddings_in_place_of_tokens_give_the_same_loss_and_an_evaluation_has_the_next_tokens() -> None:
    model, ids = built(spec(n_predict=2)), tokens()
    plain = without_modules(model, spec(n_predict=2))
    assert torch.equal(model(ids, labels=ids).loss, plain(ids, labels=ids).loss)
    model.train()
    loss = model(ids, labels=ids).loss
    torch.testing.assert_close(model(inputs_embeds=model.model.embed_tokens(ids), labels=ids).loss, loss)
    assert loss > plain(ids, labels=ids).loss


def test_a_sequence_shorter_than_the_predictions_still_trains() -> None:
    model = built(spec(n_predict=4)).train()
    for time in (2, 3):
        loss = model(tokens(time=time), labels=tokens(time=time)).loss
        assert torch.isfinite(loss)


class Recomputed(HeadDrafts):
    """Holds every draft against one that is computed from nothing."""

    def draft(self, input_ids: Any, hidden_states: Any, count: int, attention_mask: Any) -> Any:
        drafts, logits = super().draft(input_ids, hidden_states, count, attention_mask)
        caches, self.caches = self.caches, self.head.draft_caches()
        seen = input_ids[:, :-1]
        mask = None if attention_mask is None else attention_mask[:, :-1]
        whole = self.model.model(seen, attention_mask=mask, use_cache=False).last_hidden_state
        expected = super().draft(input_ids, whole, count, attention_mask)[1]
        self.caches = caches
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        return drafts, logits


def train(model: Any, steps: int = 60) -> Any:
    """Teaches the model to count in threes, so that drafts come true."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for step in range(steps):
        start = torch.randint(0, 50, (8, 1), generator=torch.Generator().manual_seed(step))
        ids = (start + 3 * torch.arange(24)) % 50
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@every_variant
def test_drafts_that_come_true_or_not_leave_the_greedy_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eulerstack_mixers.modules.mtp.HeadDrafts", Recomputed)
    model = built(VARIANTS[name])
    for prompt in (tokens(batch=1, time=1), tokens(batch=1, time=6, seed=4)):
        plain = without_modules(model, VARIANTS[name])
        assert torch.equal(greedy(model, prompt, use_mtp=True), greedy(plain, prompt))


@pytest.mark.parametrize("name", ["one", "three", "window"])
def test_a_trained_model_accepts_its_drafts_and_takes_fewer_passes(name: str) -> None:
    case = changed(VARIANTS[name], {"layer_schedule.0.repeat": 1})
    model = train(es.compile_to_hf_model(es.normalize_to_ir(case), seed=0))
    passes: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    prompt = (2 + 3 * torch.arange(8))[None] % 50
    expected = greedy(model, prompt)
    assert torch.equal(expected[0], (2 + 3 * torch.arange(28)) % 50) and len(passes) == 20
    passes.clear()
    assert torch.equal(greedy(model, prompt, use_mtp=True), expected)
    # The prompt gives one token, every pass after it one more than there are modules.
    assert len(passes) == 1 + -(-19 // (len(model.head.predictors) + 1))
    for most in (0, 1):
        passes.clear()
        assert torch.equal(greedy(model, prompt, use_mtp=True, num_assistant_tokens=most), expected)
        assert len(passes) == 1 + -(-19 // (most + 1))


def test_the_end_token_a_mask_and_the_budget_are_kept() -> None:
    model = built(spec(n_predict=3))
    prompt = tokens(batch=1, time=6)
    expected = greedy(model, prompt)
    end = int(expected[0, 12])
    for words in ({"eos_token_id": end}, {"max_new_tokens": 1}, {"max_new_tokens": 2}, {"max_new_tokens": 5}):
        assert torch.equal(greedy(model, prompt, use_mtp=True, **words), greedy(model, prompt, **words))
    padded, mask = torch.cat([torch.zeros(1, 4, dtype=torch.long), prompt], 1), torch.ones(1, 10, dtype=torch.long)
    mask[:, :4] = 0
    assert torch.equal(greedy(model, padded, attention_mask=mask, use_mtp=True)[:, 4:], expected)


def test_a_conversation_goes_on_from_a_cache() -> None:
    model = built(spec(n_predict=2))
    first = greedy(model, tokens(batch=1, time=6), return_dict_in_generate=True, use_mtp=True)
    longer = torch.cat([first.sequences, tokens(batch=1, time=3, seed=9)], 1)
    again = greedy(model, longer, past_key_values=first.past_key_values, use_mtp=True)
    assert torch.equal(again, greedy(model, longer))


PHASES = {
    "execution_modes": [
        {"name": "think", "max_tokens": 5, "visible_to_user": False, "loss_weight": 0.25},
        {"name": "answer", "max_tokens": 6},
    ],
    "transition": {"type": "budget_exhausted"},
}


@pytest.mark.parametrize("kv_share", [True, False])
def test_phases_are_drafted_too(kv_share: bool) -> None:
    model = built(changed(spec(n_predict=2), {**PHASES, "execution_modes.0.kv_share": kv_share}))
    options = {"do_sample": False, "pad_token_id": 0, "visible_only": False}
    for seed in range(3):
        prompt = tokens(batch=1, time=6, seed=seed)
        assert torch.equal(model.generate(prompt, use_mtp=True, **options), model.generate(prompt, **options))


def test_a_target_counts_by_its_own_phase() -> None:
    model, ids = built(changed(spec(n_predict=2), PHASES)).train(), tokens()
    phases = torch.zeros_like(ids)
    plain = model(ids, labels=ids).loss
    torch.testing.assert_close(model(ids, labels=ids, phase_ids=phases).loss, 0.25 * plain)
    phases[:, 8:] = 1
    losses = [model(ids, labels=each, phase_ids=phases, num_items_in_batch=32).loss for each in (
        ids, ids.masked_fill(phases == 1, -100), ids.masked_fill(phases == 0, -100)
    )]  # fmt: skip
    torch.testing.assert_close(losses[0], losses[1] + losses[2])
    unweighted = model(ids, labels=ids.masked_fill(phases == 1, -100), num_items_in_batch=32).loss
    torch.testing.assert_close(losses[1], 0.25 * unweighted)


def test_sampled_tokens_follow_the_models_distribution() -> None:
    model = built(changed(spec(), {"model.vocab_size": 5}))
    prompt = torch.tensor([[1, 2, 3]])
    torch.manual_seed(0)
    counts = torch.zeros(2, 5)
    for index, use_mtp in enumerate((None, True)):
        for _ in range(400):
            drawn = model.generate(prompt, do_sample=True, max_new_tokens=3, pad_token_id=0, use_mtp=use_mtp)
            counts[index, drawn[0, 5]] += 1
    assert (counts[0] - counts[1]).abs().sum() / 800 < 0.12


@pytest.mark.parametrize(
    ("changes", "whose"),
    [
        ({MIXER: {"type": "retnet"}}, "the model"),
        (
            {"layer_templates.state": {"mixer": {"type": "retnet"}, "ffn": {"type": "mlp"}},
             "head.mtp": {"n_predict": 2, "head_template": "state"}},
            "the head's template",
        ),
    ],
)  # fmt: skip
def test_states_that_cannot_be_rolled_back_are_refused_clearly(changes: dict[str, Any], whose: str) -> None:
    model = built(changed(spec(), changes))
    with pytest.raises(ValueError, match=f"{whose} keeps a state that can't be rolled back"):
        greedy(model, tokens(batch=1, time=6), use_mtp=True)


def test_one_module_with_a_recurrent_state_drafts_because_none_of_its_entries_is_taken_back() -> None:
    state = {"mixer": {"type": "retnet"}, "ffn": {"type": "mlp"}}
    model = built(changed(spec(head_template="state"), {"layer_templates.state": state}))
    prompt = tokens(batch=1, time=6)
    assert torch.equal(greedy(model, prompt, use_mtp=True), greedy(model, prompt))


def test_a_head_of_one_token_has_no_drafts_to_give() -> None:
    with pytest.raises(ValueError, match="this model's head predicts the next token only"):
        greedy(built(tiny_spec()), tokens(batch=1, time=6), use_mtp=True)


@every_variant
def test_parameters_caches_and_the_price_of_drafts_are_the_built_ones(name: str) -> None:
    ir, model = es.normalize_to_ir(VARIANTS[name]), built(VARIANTS[name])
    cost = model_cost(ir)
    own = sum(each.numel() for each in model.head.parameters())
    assert cost.drafts is not None and cost.drafts.total == own
    assert cost.total == sum(each.numel() for each in model.parameters())
    plain = model_cost(es.normalize_to_ir(changed(VARIANTS[name], {"head": {"type": "causal_lm"}})))
    assert cost.cache_bytes(20) == plain.cache_bytes(20) and cost.flops_per_token(20) == plain.flops_per_token(20)
    assert cost.total - own == without_modules(model, VARIANTS[name]).num_parameters()
    caches = model.head.draft_caches()
    states = torch.randn(1, 12, WIDTH)
    for predictor, cache in zip(model.head.predictors, caches, strict=True):
        predictor(states, states, None, past_key_values=cache, use_cache=True)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for cache in caches for layer in cache.layers)
    assert stored == cost.drafts.cache_bytes(12)


def test_explain_tells_what_drafts_cost() -> None:
    case = spec(n_predict=2)
    data = describe(as_spec(case), es.normalize_to_ir(case))
    drafts = data["drafts"]
    assert drafts["params"] == sum(each.numel() for each in built(case).head.parameters())
    assert (
        drafts["active"] == drafts["params"] and data["params"]["active"] == data["params"]["total"] - drafts["params"]
    )
    assert drafts["cache_bytes"]["per_token"] == 2 * 2 * 12 * 4
    width, vocab = WIDTH, 53
    layer = 2 * (2 * width * 36 + 2 * width * 12 + 3 * width * 50) + 4 * 36 * 64
    assert drafts["flops_per_token"] == 2 * (4 * width * width + 2 * vocab * width + layer)
    plain = describe(as_spec(tiny_spec()), es.normalize_to_ir(tiny_spec()))
    assert plain["drafts"] is None
    # Training runs the modules on every token.
    prompt = model_cost(es.normalize_to_ir(case)).drafts.flops_per_token(64, "prefill")
    more = data["training_cost"]["flops_per_token"] - plain["training_cost"]["flops_per_token"]
    assert more == pytest.approx(3 * prompt)


@every_variant
def test_the_ir_prints_and_reads_back(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir
    assert from_data(to_data(ir)) == ir and from_data(compile_ir(ir)["architecture"]) == ir


def test_a_template_stands_plain_beside_layers_that_override_it() -> None:
    case = changed(spec(head_template="decoder"), {"layer_schedule": [
        {"template": "decoder", "repeat": 2, "override": {"attention": {"window": 4}}},
        {"template": "decoder", "override": {"attention": {"window": 6}}},
    ]})  # fmt: skip
    ir = es.normalize_to_ir(case)
    assert ir.head_layer is not None and ir.head_layer.mixer.params["window"] is None
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir
    assert list(built(case).head.predictors[0].stack.layer_types) == ["full_attention"]
    prompt = tokens(batch=1, time=6)
    assert torch.equal(greedy(built(case), prompt, use_mtp=True), greedy(built(case), prompt))


def test_a_template_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(head_template="decoders"))
    (problem,) = caught.value.diagnostics
    assert problem.path == "head.mtp.head_template" and problem.fix.render(str) == "Type head_template: decoder"


def test_a_directory_drafts_where_it_is_loaded_and_saved_again(tmp_path: Path) -> None:
    case = spec(n_predict=2)
    es.compile_to_directory(es.normalize_to_ir(case), tmp_path / "first", seed=0)
    first = AutoModelForCausalLM.from_pretrained(tmp_path / "first", trust_remote_code=True)
    first.save_pretrained(tmp_path / "second")
    second = AutoModelForCausalLM.from_pretrained(tmp_path / "second", trust_remote_code=True)
    assert first.config.num_mtp_layers == 2
    prompt = tokens(batch=1, time=6)
    expected = greedy(es.compile_to_hf_model(es.normalize_to_ir(case), seed=0), prompt)
    for model in (first, second):
        assert torch.equal(greedy(model, prompt, use_mtp=True), expected)
    source = (tmp_path / "first" / "modeling_eulerstack.py").read_text(encoding="utf-8")
    assert "class HeadDrafts" in source and "import eulerstack" not in source
    es.compile_to_directory(es.normalize_to_ir(tiny_spec()), tmp_path / "plain", seed=0)
    assert "HeadDrafts" not in (tmp_path / "plain" / "modeling_eulerstack.py").read_text(encoding="utf-8")


def test_it_trains_when_compiled_into_one_graph() -> None:
    model = built(spec(n_predict=2)).train()
    ids = tokens()
    expected = model(ids, labels=ids, use_cache=False).loss
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, labels=ids, use_cache=False).loss, expected)
