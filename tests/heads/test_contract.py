"""A third party's head may have layers of a template, and drafts of its own."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.generation.candidate_generator import CandidateGenerator  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.dsl.source import parse_text  # noqa: E402
from eulerstack.errors import CompatibilityError  # noqa: E402
from eulerstack.hf.modeling import EulerStackModel  # noqa: E402
from eulerstack.ir.printer import print_ir  # noqa: E402
from eulerstack.plugins import Cost, HeadLayers, Primitive, hookimpl  # noqa: E402
from eulerstack.plugins import manager as manager_module  # noqa: E402
from eulerstack.plugins.manager import installed_sources, reset_registry  # noqa: E402
from eulerstack.plugins.sources import PluginSource  # noqa: E402
from eulerstack_mixers.modules.mtp import module_config  # noqa: E402
from tests.model.specs import built, changed, tiny_spec, tokens  # noqa: E402


class Echoes(CandidateGenerator):
    """Drafts the last token three times over."""

    def get_candidates(self, input_ids: Any, **kwargs: Any) -> tuple[Any, None]:
        return torch.cat((input_ids, input_ids[:, -1:].expand(-1, 3)), dim=1), None

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        """Nothing."""


class EchoHead(torch.nn.Module):
    """Logits after one more layer."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__()
        self.stack = EulerStackModel(module_config(config, 1))
        self.seen: dict[str, Any] = {}

    def forward(self, hidden_states: Any, lm_head: Any) -> Any:
        return lm_head(hidden_states)

    def loss(self, logits: Any, labels: Any, loss_function: Any, hidden_states: Any, lm_head: Any, batch: Any,
             **kwargs: Any) -> Any:  # fmt: skip
        self.seen = batch
        again = self.stack(inputs_embeds=hidden_states, use_cache=False).last_hidden_state
        return loss_function(logits=lm_head(again), labels=labels, vocab_size=logits.shape[-1], **kwargs)

    def candidate_generator(self, model: Any, generation_config: Any, logits_processor: Any) -> Echoes:
        return Echoes()


ECHO = Primitive(
    name="vendor.acme.echo",
    kind="head",
    summary="one more layer while training",
    module="tests.heads.test_contract:EchoHead",
    schema={"type": "object", "properties": {"layer": {"type": ["string", "null"], "default": None}}},
    resolve=lambda params, model: {"layer": params["layer"] or model["last_template"]},
    head_layers=lambda dims, params: HeadLayers("layer", params["layer"], 1, 1, 1, Cost()),
)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("acme")
    module.eulerstack_heads = hookimpl(lambda: [ECHO])  # type: ignore[attr-defined]
    sources = [*installed_sources(), PluginSource("acme", "acme", "1.0", lambda: module)]
    monkeypatch.setattr(manager_module, "installed_sources", lambda: sources)
    reset_registry()
    yield
    reset_registry()


def spec(**block: Any) -> dict[str, Any]:
    drafts = {"mixer": {"type": "attention", "attention": {"window": 3}}, "ffn": {"type": "mlp"}}
    return changed(tiny_spec(), {"layer_templates.drafts": drafts, "head": {"type": ECHO.name, ECHO.name: block}})


@pytest.mark.parametrize("template", [None, "drafts"])
def test_its_layers_are_made_counted_printed_and_trained(template: str | None) -> None:
    ir, model = es.normalize_to_ir(spec(layer=template)), built(spec(layer=template)).train()
    assert ir.head_layer is not None and ir.head_layer.template == (template or "decoder")
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir
    drafts = model_cost(ir).drafts
    assert drafts is not None and drafts.total == sum(each.numel() for each in model.head.parameters())
    assert es.count_parameters(ir) == sum(each.numel() for each in model.parameters())
    ids = tokens()
    model(ids, labels=ids).loss.backward()
    assert all(each.grad is not None for each in model.parameters())
    assert torch.equal(model.head.seen["input_ids"], ids)
    assert torch.equal(model.head.seen["inputs_embeds"], model.model.embed_tokens(ids))


def test_its_drafts_leave_the_greedy_tokens() -> None:
    model, options = built(spec()), {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    prompt = tokens(batch=1, time=6)
    assert torch.equal(model.generate(prompt, use_mtp=True, **options), model.generate(prompt, **options))


def test_a_template_that_is_not_there_is_refused_where_the_head_names_it() -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(layer="draft"))
    (problem,) = caught.value.diagnostics
    assert problem.path == f"head.{ECHO.name}.layer" and problem.fix.render(str) == "Type layer: drafts"
