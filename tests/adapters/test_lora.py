"""LoRA through PEFT: it acts on every kind of layer, however that computes, and merges into plain weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from eulerstack.hf.matrices import matrix_of
from tests.model.specs import built, tokens
from tests.model.variants import VARIANTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "lora.md"
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


def adapted(name: str, **words: Any) -> Any:
    """A variant's model with LoRA of random numbers on all of its linear layers."""
    model = get_peft_model(built(VARIANTS[name]), LoraConfig(r=2, target_modules="all-linear", **words))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


# Those that compute with a matrix itself somewhere: latents that are absorbed, steps before their bias, gates.
@pytest.mark.parametrize("name", ["latent", "mamba1", "retnet_hybrid", "hyena_hybrid", "gated_moe", "parallel_gated"])
def test_adapters_act_alike_in_training_decoding_and_once_merged(name: str) -> None:
    model, ids = adapted(name), tokens(time=9)
    plain = built(VARIANTS[name])
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    dead = [key for key, each in model.named_parameters() if each.requires_grad and not each.grad.any()]
    assert dead == []
    model.eval()
    with torch.no_grad():
        full = model(input_ids=ids, use_cache=False).logits
        cache, steps = None, []
        for place in range(ids.shape[1]):
            output = model(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
        assert (torch.cat(steps, dim=1) - full).abs().max() < 1e-4
        assert (plain(ids, use_cache=False).logits - full).abs().max() > 0.1
        merged = model.merge_and_unload()
        assert (merged(ids, use_cache=False).logits - full).abs().max() < 1e-4
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in plain.named_parameters()}


@pytest.mark.parametrize("name", ["moe", "moe_limited", "moe_probed"])
def test_experts_in_one_tensor_take_adapters_too(name: str) -> None:
    model, ids = adapted(name, target_parameters=EXPERTS), tokens(time=9)
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    gradients = [bool(each.grad.any()) for key, each in model.named_parameters() if "experts" in key and "lora_" in key]
    assert len(gradients) == 12 and all(gradients)
    with torch.no_grad():
        full = model.eval()(input_ids=ids, use_cache=False).logits
        assert (model.merge_and_unload()(ids, use_cache=False).logits - full).abs().max() < 1e-4


def test_the_matrix_of_a_layer_is_what_it_multiplies_by_whatever_replaces_it() -> None:
    class Doubled(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 2 * nn.functional.linear(inputs, self.weight) + self.bias

    torch.manual_seed(0)
    plain, doubled = nn.Linear(5, 3), Doubled(5, 3)
    assert torch.equal(matrix_of(plain, torch.float32), plain.weight)
    assert torch.allclose(matrix_of(doubled, torch.float64), 2 * doubled.weight.double(), atol=1e-6)


ROW = re.compile(r"^\| ([^|]+) \| (`[^|]+`) \|$", re.MULTILINE)


def layers_of(name: str, part: str) -> set[str]:
    """The linear layers in the parts of that name of a variant's layers."""
    return {
        key.split(f".{part}.", 1)[1]
        for key, module in built(VARIANTS[name]).named_modules()
        if isinstance(module, nn.Linear) and f".{part}." in key
    }


@pytest.mark.parametrize(
    ("row", "part", "names"),
    [
        ("attention", "mixer", ["plain"]),
        ("attention with latent_dim", "mixer", ["latent", "latent_full"]),
        ("mamba1", "mixer", ["mamba1"]),
        ("mamba2", "mixer", ["mamba2"]),
        ("retnet", "mixer", ["retnet"]),
        ("hyena", "mixer", ["hyena"]),
        ("ttt_layer", "mixer", ["ttt_linear"]),
        ("gated_mlp", "ffn", ["plain"]),
        ("mlp", "ffn", ["mlp"]),
        ("neural_memory", "memory", ["memory_neural"]),
        ("associative", "memory", ["memory_associative"]),
        ("retrieval", "memory", ["memory_retrieval"]),
    ],
)
def test_the_page_names_every_linear_layer(row: str, part: str, names: list[str]) -> None:
    shown = {word.replace("`", ""): layers for word, layers in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    found = set().union(*(layers_of(name, part) for name in names))
    assert found == set(re.findall(r"`(\w+)`", shown[row]))
