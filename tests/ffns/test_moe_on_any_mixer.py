"""A mixture of experts stands beside every mixer that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

import eulerstack as es
from eulerstack.plugins.manager import get_registry
from tests.model.mixers.moe import spec
from tests.model.specs import VOCAB, built, changed, tokens

# What a mixer can't do without; the others get their defaults.
NEEDED: dict[str, Any] = {
    "mamba": {"d_state": 4, "head_dim": 12},
    "branched": {
        "branches": {
            "near": {"type": "attention", "attention": {"window": 4}},
            "far": {"type": "retnet", "retnet": {}},
        }
    },
    "ttt_layer": {"inner_model": {"type": "linear"}, "mini_batch": 4},
}
MIXERS = sorted(primitive.name for primitive in get_registry().primitives() if primitive.kind == "mixer")
ROUTINGS: dict[str, dict[str, Any]] = {
    "learned": {"shared_experts": 1, "capacity_factor": 0.7},
    "hash": {"routing": {"type": "hash"}},
}


def model_of(mixer: str, routing: str) -> tuple[Any, dict[str, Any]]:
    block = get_registry().get("mixer", mixer).block_name
    template = {"type": mixer, **({block: NEEDED[mixer]} if mixer in NEEDED else {})}
    words = changed(spec(**ROUTINGS[routing]), {"layer_templates.decoder.mixer": template})
    return built(words), words


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_it_decodes_as_it_reads_and_learns_as_it_is_counted(mixer: str, routing: str) -> None:
    model, words = model_of(mixer, routing)
    assert sum(each.numel() for each in model.parameters()) == es.count_parameters(es.normalize_to_ir(words))
    ids = tokens(time=13)
    with torch.no_grad():
        whole = model(ids).logits
        later = ids.clone()
        later[:, 9:] = (later[:, 9:] + 1) % VOCAB
        torch.testing.assert_close(model(later).logits[:, :9], whole[:, :9], atol=1e-4, rtol=0)
        cache, steps = DynamicCache(config=model.config), []
        for begin, end in ((0, 6), *((step, step + 1) for step in range(6, 13))):
            steps.append(model(ids[:, begin:end], past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=0)
    output = model.train()(ids, labels=ids, use_cache=False)
    output.loss.backward()
    assert (float(output.aux_loss.detach()) > 0) == (routing == "learned")
    assert all(layer.ffn.router.weight.grad.abs().max() > 0 for layer in model.model.layers)
