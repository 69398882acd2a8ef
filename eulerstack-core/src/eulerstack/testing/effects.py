"""What it takes for a field to do something: one check for each word that `Case.effect` may be.

None of them looks at the architecture in config.json, which repeats whatever a spec says: a field that is only written
there does nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eulerstack.compiler.compile import compile_ir, compile_to_hf_model
from eulerstack.compiler.cost import count_parameters, model_cost
from eulerstack.compiler.tokenizer import copy_tokenizer
from eulerstack.compiler.writer import write_source
from eulerstack.errors import EulerStackError
from eulerstack.hf import finish_quant_aware_training, optimizer_groups, training_arguments
from eulerstack.hf.quantization import rounding_plan
from eulerstack.ir import normalize_to_ir
from eulerstack.plugins.manager import get_registry
from eulerstack.schema import report, validate_v2
from eulerstack.testing.accounting import cache_bytes as bytes_of
from eulerstack.testing.cases import Case
from eulerstack.testing.models import built, tokens
from eulerstack.testing.specs import changed, tiny_spec

Spec = dict[str, Any]


def check(case: Case) -> None:
    """Fails unless the case's changes have its effect."""
    if case.needs:
        pytest.importorskip(case.needs)
    before = changed(tiny_spec(), case.given)
    EFFECTS[case.effect](before, changed(before, case.changes), case)


def refused(before: Spec, after: Spec, case: Case) -> None:
    """The only other legal value is none: it is refused where it stands."""
    validate_v2(before)
    with pytest.raises(EulerStackError) as caught:
        validate_v2(after)
    (changed_path,) = case.changes
    assert any(each.path and changed_path.startswith(each.path.split("[")[0]) for each in caught.value.diagnostics)


def parameters(before: Spec, after: Spec, case: Case) -> None:
    """Another number of parameters, which the built models have; with it goes another function."""
    assert len({count_parameters(normalize_to_ir(spec)) for spec in (before, after)}) == 2
    function(before, after, case)


def function(before: Spec, after: Spec, case: Case) -> None:
    """Other logits for the same weights."""
    models = [built(spec) for spec in (before, after)]
    for model, spec in zip(models, (before, after), strict=True):
        assert sum(p.numel() for p in model.parameters()) == count_parameters(normalize_to_ir(spec))
    with torch.no_grad():
        a, b = (model(tokens(time=24)).logits for model in models)
    assert a.shape != b.shape or (a - b).abs().max() > 1e-4


def training(before: Spec, after: Spec, case: Case) -> None:
    """Other logits while training alone."""
    first, second = built(before), built(after)
    ids = tokens(time=24)
    with torch.no_grad():
        assert torch.equal(first(ids).logits, second(ids).logits)
        torch.manual_seed(0)
        assert not torch.allclose(first.train()(ids).logits, second.train()(ids).logits, atol=1e-3)


def loss(before: Spec, after: Spec, case: Case) -> None:
    """The same logits, but another loss while training."""
    models = [built(spec) for spec in (before, after)]
    ids = tokens(time=24)
    _same_logits(*models)
    first, second = (model.train()(ids, labels=ids).loss for model in models)
    assert abs(float(first.detach() - second.detach())) > 1e-6


def phase_loss(before: Spec, after: Spec, case: Case) -> None:
    """The same logits and the same plain loss, but another loss of labelled phases."""
    assert "execution_modes" in before
    models = [built(before), built(after)]
    ids = tokens(time=24)
    _same_logits(*models)
    with torch.no_grad():
        plain = [model(ids, labels=ids).loss for model in models]
        weighted = [model(ids, labels=ids, phase_ids=torch.zeros_like(ids)).loss for model in models]
    assert plain[0] == plain[1] and abs(weighted[0] - weighted[1]) > 1e-3


def generation(before: Spec, after: Spec, case: Case) -> None:
    """The same logits, but other tokens are generated, or returned."""
    models = [built(before), built(after)]
    _same_logits(*models)
    first, second = (_generated(model) for model in models)
    assert not torch.equal(first, second)


def named(before: Spec, after: Spec, case: Case) -> None:
    """Generation is given a budget by another name."""
    assert "execution_modes" in before
    (name,) = case.changes
    index = int(name.split(".")[1])
    budgets = {before["execution_modes"][index]["name"]: 1}
    assert _generated(built(before), phase_budgets=budgets).shape != _generated(built(before)).shape
    with pytest.raises(ValueError, match=next(iter(budgets))):
        _generated(built(after), phase_budgets=budgets)


def modules(before: Spec, after: Spec, case: Case) -> None:
    """Another number of parameters, which the built models have, and another loss while training: the same logits."""
    assert len({count_parameters(normalize_to_ir(spec)) for spec in (before, after)}) == 2
    for spec in (before, after):
        assert sum(p.numel() for p in built(spec).parameters()) == count_parameters(normalize_to_ir(spec))
    loss(before, after, case)


def corrections(before: Spec, after: Spec, case: Case) -> None:
    """Training passes leave other numbers behind than weights: the corrections of routers."""
    found = []
    for model in (built(before), built(after)):
        with torch.no_grad():
            for seed in range(3):
                model.train()(tokens(time=24, seed=seed))
        found.append({name: value.clone() for name, value in model.named_buffers() if name.endswith("router.bias")})
    assert found[0].keys() != found[1].keys() or any(
        not torch.equal(found[0][name], found[1][name]) for name in found[0]
    )


def remembered(before: Spec, after: Spec, case: Case) -> None:
    """The same logits of one input, but others after a call of `generate`: of a new input, or of its continuation."""
    models = [built(before), built(after)]
    _same_logits(*models)
    found = []
    for model in models:
        first = model.generate(
            tokens(time=7), max_new_tokens=3, do_sample=False, pad_token_id=0, return_dict_in_generate=True
        )
        more = torch.cat((tokens(time=7), tokens(time=8, seed=1)), dim=1)
        later = model.generate(
            more, past_key_values=first.past_key_values, max_new_tokens=1, do_sample=False, pad_token_id=0,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        with torch.no_grad():
            found.append(torch.cat((later.logits[0], model(tokens(time=5, seed=2)).logits[:, -1])))
    assert (found[0] - found[1]).abs().max() > 1e-4


def initial(before: Spec, after: Spec, case: Case) -> None:
    """Other initial weights."""
    first, second = (compile_to_hf_model(normalize_to_ir(spec)).state_dict() for spec in (before, after))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def cost(before: Spec, after: Spec, case: Case) -> None:
    """Another computation of the same function: the price of a prompt changes, the numbers don't."""
    prices = [model_cost(normalize_to_ir(spec)).prefill_flops(context=24) for spec in (before, after)]
    assert prices[0] != prices[1]
    _same_logits(built(before), built(after))


def cache_bytes(before: Spec, after: Spec, case: Case) -> None:
    """Other bytes that a cache holds, as many as are declared."""
    held = []
    for spec in (before, after):
        with torch.no_grad():
            cache = built(spec)(tokens(time=24), use_cache=True).past_key_values
        held.append(bytes_of(cache))
        assert held[-1] == model_cost(normalize_to_ir(spec)).cache_bytes(24, batch=2)
    assert held[0] != held[1]


def operations(before: Spec, after: Spec, case: Case) -> None:
    """The same function at the same price, through another sequence of operations."""
    counts = []
    models = [built(spec) for spec in (before, after)]
    for model in models:
        with torch.no_grad(), _Counter() as counter:
            model(tokens(time=24))
        counts.append(counter.number)
    assert counts[0] != counts[1]
    _same_logits(*models)


def fact(before: Spec, after: Spec, case: Case) -> None:
    """Another word of config.json that other programs read."""
    configs = [compile_ir(normalize_to_ir(spec)) for spec in (before, after)]
    for config in configs:
        del config["architecture"], config["v1_extensions"]
    assert configs[0] != configs[1]


def source(before: Spec, after: Spec, case: Case) -> None:
    """Another text of the exported Python file."""
    assert _source(before) != _source(after)


def findings(before: Spec, after: Spec, case: Case) -> None:
    """Another verdict of the realism rules."""
    assert _findings(before) != _findings(after)


def tokenizer(before: Spec, after: Spec, case: Case) -> None:
    """The tokenizer beside the model does something else with a text."""
    assert _tokenizer(before) != _tokenizer(after)


def groups(before: Spec, after: Spec, case: Case) -> None:
    """Another group of the optimizer for some parameter."""
    found = []
    for model in _initial_models(before, after):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        found.append(
            {
                names[id(parameter)]: {word: value for word, value in group.items() if word != "params"}
                for group in optimizer_groups(model)
                for parameter in group["params"]
            }
        )
    assert found[0] != found[1]


def groups_refused(before: Spec, after: Spec, case: Case) -> None:
    """Groups can't be made, because the model lacks what the word is about."""
    first, second = _initial_models(before, after)
    assert optimizer_groups(first)
    try:
        optimizer_groups(second)
    except ValueError as error:
        assert next(iter(case.changes)).rpartition(".")[2] in str(error)
    else:
        pytest.fail("groups can be made")


def trainer(before: Spec, after: Spec, case: Case) -> None:
    """Other arguments for a Trainer."""
    first, second = map(training_arguments, _initial_models(before, after))
    assert first != second


def recomputed(before: Spec, after: Spec, case: Case) -> None:
    """Layers are computed again in the backward pass."""
    assert [_passes_of_a_layer(model) for model in _initial_models(before, after)] == [1, 2]


def dtypes(before: Spec, after: Spec, case: Case) -> None:
    """Other number types of some weights."""
    first, second = (
        {name: each.dtype for name, each in model.named_parameters()} for model in _initial_models(before, after)
    )
    assert first != second


def rounding(before: Spec, after: Spec, case: Case) -> None:
    """Other layers round their weights, to another type, or end in another; tests/oracles/test_torchao.py rounds."""
    found = []
    with patch("eulerstack.schema.training_checks.find_spec", lambda name: name):
        models = _initial_models(before, after)
    for model in models:
        try:
            plan = rounding_plan(model)
        except EulerStackError:
            plan = {}
        finish_quant_aware_training(model)
        found.append((plan, {each.dtype for each in model.parameters()}))
    assert found[0] != found[1]


EFFECTS: dict[str, Callable[[Spec, Spec, Case], None]] = {
    effect.__name__: effect
    for effect in (
        refused, parameters, function, training, loss, modules, corrections, remembered, initial, cost, cache_bytes,
        operations, fact, source, findings, tokenizer, groups, groups_refused, trainer, recomputed, dtypes, rounding,
        phase_loss, generation, named,
    )
}  # fmt: skip


class _Counter(TorchDispatchMode):
    """Counts the operations that reach torch's dispatcher."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def _generated(model: Any, **words: Any) -> torch.Tensor:
    model.generation_config.transition_token_id = 7
    return model.generate(tokens(time=6), pad_token_id=0, **words)


def _initial_models(before: Spec, after: Spec) -> list[Any]:
    return [compile_to_hf_model(normalize_to_ir(spec)) for spec in (before, after)]


def _passes_of_a_layer(model: Any) -> int:
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    model.model.layers[0].mixer.register_forward_pre_hook(counted)
    ids = tokens()
    model.train()(ids, labels=ids, use_cache=False).loss.backward()
    return count


def _same_logits(first: torch.nn.Module, second: torch.nn.Module) -> None:
    with torch.no_grad():
        a, b = first(tokens(time=24)).logits, second(tokens(time=24)).logits
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def _source(spec: Spec) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write_source(normalize_to_ir(spec), Path(folder))
        return Path(folder, "modeling_eulerstack.py").read_text(encoding="utf-8")


def _findings(spec: Spec) -> list[tuple[str, str]]:
    found = report(normalize_to_ir(spec), get_registry())
    return [(finding.rule, finding.what.render(str)) for finding in found]


def _tokenizer(spec: Spec) -> Any:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        copy_tokenizer(normalize_to_ir(spec), Path(folder), None)
        if not Path(folder, "tokenizer_config.json").exists():
            return None
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        padded = loaded(["a b", "a"], padding=loaded.pad_token is not None).input_ids
        return padded, loaded.pad_token, sorted(loaded.get_added_vocab())
