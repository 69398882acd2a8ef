"""A model of every row of docs/reference/runtime.md does what its declaration says, and refuses what it rules out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import eulerstack as es
from tests.model.specs import built, changed, tiny_spec
from tests.preset_runs.reduction import assignments

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from pages.runtime import Row, rows, spec_of  # noqa: E402

ROWS = list(rows())
FLAGS = {
    "sdpa": "_supports_sdpa",
    "flash": "_supports_flash_attn",
    "flex": "_supports_flex_attn",
    "serving": "_supports_attention_backend",
}
GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.name}-{row.setting}".strip("-"))


def ids(batch: int = 1, time: int = 12) -> torch.Tensor:
    """Token ids, (batch, time)."""
    return torch.randint(0, 64, (batch, time), generator=torch.Generator().manual_seed(1))


def model_of(row: Row) -> Any:
    """A lively model of a row; skipped where a package that it wraps is missing."""
    for package in row.declared()[0].requires:
        pytest.importorskip(package)
    return built(row.spec)


def test_every_primitive_of_ours_has_a_row() -> None:
    from eulerstack.plugins.manager import get_registry

    registry = get_registry()
    ours = {(each.kind, each.name) for each in registry.primitives() if registry.is_own(each)}
    assert {(row.kind, row.name) for row in ROWS} == {(kind, name) for kind, name in ours if kind != "linear"}


@every_row
@torch.no_grad()
def test_a_row_decodes_and_refuses_as_declared(row: Row) -> None:
    runtime, model = row.declared()[1], model_of(row)
    assert {name for name, flag in FLAGS.items() if not getattr(model, flag)} == set(runtime.refused)
    assert model._can_compile_fullgraph is runtime.one_graph
    prompt = ids()
    greedy = model.generate(prompt, use_cache=False, **GREEDY)
    if runtime.cached:
        assert model(prompt, use_cache=True).past_key_values is not None
        assert torch.equal(model.generate(prompt, **GREEDY), greedy)
        static = {"cache_implementation": "static", "disable_compile": True}
        assert torch.equal(model.generate(prompt, **static, **GREEDY), greedy)
    else:
        with pytest.raises(ValueError, match="no cache can hold"):
            model(prompt, use_cache=True)
    if runtime.assisted:
        assert torch.equal(model.generate(prompt, prompt_lookup_num_tokens=2, **GREEDY), greedy)
        assert torch.equal(model.generate(prompt, assistant_model=assistant(), **GREEDY), greedy)
    elif runtime.assisted is False:
        with pytest.raises((RuntimeError, ValueError), match=r"assisted"):
            model.generate(prompt, assistant_model=assistant(), **GREEDY)


def assistant() -> Any:
    """A model that drafts."""
    return built(changed(tiny_spec(), {"model.vocab_size": 64, "layer_schedule.0.repeat": 1}))


def together(position: str, merge: str) -> dict[str, Any]:
    """A model with a position and a merge of those that the preset of everything leaves out."""
    from eulerstack.plugins.manager import get_registry

    spec = spec_of(get_registry().get("merge", merge), {})
    return changed(spec, {"embedding.positional": position, "layer_templates.row.residual": {"type": "parallel"}})


@pytest.mark.parametrize(("position", "merge"), [("alibi", "concat"), ("learned", "add"), ("none", "add")])
def test_the_positions_and_merges_left_over_make_one_graph(position: str, merge: str) -> None:
    makes_one_graph(es.normalize_to_ir(together(position, merge)))


def test_all_that_say_so_make_one_graph_together() -> None:
    """The preset of everything, without the gate that no graph can hold."""
    name = "arch_expert_kitchen_sink"
    given = assignments(es.load(name))
    index = next(index for index, each in enumerate(given) if each.startswith("layer_schedule="))
    # Without its gate the layer stays: every template has a place in the map of columns.
    schedule = [
        {word: value for word, value in entry.items() if word != "depth_gating"}
        for entry in es.load(name, given)["layer_schedule"]
    ]
    given[index] = f"layer_schedule={json.dumps(schedule)}"
    given += ["model.vocab_size=64", "tokenizer_contract.pretrained=null", "head={type: causal_lm}"]
    makes_one_graph(es.normalize_to_ir(es.load(name, given)))


@torch.no_grad()
def makes_one_graph(ir: Any) -> None:
    """Holds a compiled model to the one that is not."""
    model = es.compile_to_hf_model(ir, seed=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    whole, again = model(ids(), use_cache=False).logits, compiled(ids(), use_cache=False).logits
    assert (whole - again).abs().max() < 1e-4


@pytest.mark.parametrize("row", [row for row in ROWS if not row.declared()[1].one_graph], ids=lambda row: row.name)
@torch.no_grad()
def test_what_makes_no_single_graph_says_so(row: Row) -> None:
    compiled = torch.compile(model_of(row), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(ids(), use_cache=False)
