"""µP: what a network computes and how far it moves in a step do not depend on its width."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import eulerstack as es
from eulerstack.hf import create_optimizer, optimizer_groups
from tests.model.specs import changed, tiny_spec

BASE, WIDTHS = 128, (128, 256, 512, 1024)
MUP = {"training_hints.scaling": {"parametrization": "mup", "base_width": BASE}}
HYBRID = {"training_hints.optimizer": "hybrid"}
ORIGINAL = {**HYBRID, "training_hints.muon": {"adjust_lr": "original", "lr_peak": 0.02}}


def spec_of(width: int, heads: int, **changes: Any) -> dict[str, Any]:
    """Two layers of this width, untied, that learn fast."""
    sizes = {
        "model.d_model": width,
        "model.n_heads": heads,
        "model.n_kv_heads": heads,
        "model.head_dim": None,
        "model.d_ff": 2 * width,
        "model.initializer_range": 0.08,
        "layer_schedule.0.repeat": 2,
        "head.tie_weights": False,
        "training_hints.lr_peak": 2e-3,
        "training_hints.weight_decay": 0.0,
    }
    return changed(tiny_spec(), {**sizes, **changes})


def movements(spec: dict[str, Any], steps: int = 4) -> dict[str, float]:
    """How far each block's output and the logits have moved after some steps, mean over all elements."""
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0).train()
    optimizer = create_optimizer(model)
    ids = torch.randint(0, model.config.vocab_size, (8, 17), generator=torch.Generator().manual_seed(1))
    seen: dict[str, torch.Tensor] = {}

    def record(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    for index, layer in enumerate(model.model.layers):
        layer.mixer.register_forward_hook(record(f"mixer {index}"))
        layer.ffn.register_forward_hook(record(f"ffn {index}"))
        layer.register_forward_hook(record(f"layer {index}"))
    first: dict[str, torch.Tensor] = {}
    for _ in range(steps):
        output = model(ids, labels=ids, use_cache=False)
        seen["logits"] = output.logits.detach()
        first = first or dict(seen)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    seen["logits"] = model(ids, use_cache=False).logits.detach()
    return {name: float((seen[name] - first[name]).abs().mean()) for name in seen}


def slopes(points: list[dict[str, float]]) -> dict[str, float]:
    """The exponent with which each movement grows with the width."""
    x = torch.tensor([math.log2(width) for width in WIDTHS])
    x = x - x.mean()
    return {
        name: float((x * torch.tensor([math.log2(point[name]) for point in points])).sum() / (x * x).sum())
        for name in points[0]
    }


@pytest.mark.parametrize("changes", [{}, HYBRID, ORIGINAL], ids=["adamw", "hybrid", "hybrid, original"])
def test_after_some_steps_every_width_has_moved_alike(changes: dict[str, Any]) -> None:
    found = slopes([movements(spec_of(width, width // 64, **MUP, **changes)) for width in WIDTHS])
    assert all(abs(slope) < 0.1 for slope in found.values()), found


def test_with_wider_heads_too() -> None:
    found = slopes([movements(spec_of(width, 2, **MUP)) for width in WIDTHS])
    assert all(abs(slope) < 0.1 for slope in found.values()), found


def test_with_a_tied_readout_blocks_move_alike_and_logits_never_grow() -> None:
    tied = {"head.tie_weights": True}
    found = slopes([movements(spec_of(width, width // 64, **MUP, **tied)) for width in WIDTHS])
    logits = found.pop("logits")
    assert all(abs(slope) < 0.1 for slope in found.values()), found
    # The part of them that the initial table has shrinks with the width.
    assert -0.5 < logits < 0.1


def test_in_the_standard_parametrization_wider_models_move_further() -> None:
    found = slopes([movements(spec_of(width, width // 64)) for width in WIDTHS])
    assert min(found.values()) > 0.4, found


def test_at_its_base_width_mup_differs_in_nothing_but_scale_and_zeros() -> None:
    plain, mup = (es.compile_to_hf_model(es.normalize_to_ir(spec_of(BASE, 2, **c)), seed=0) for c in ({}, MUP))
    zeros = {name for name, parameter in mup.named_parameters() if not parameter.any()}
    assert zeros == {"lm_head.weight", *(f"model.layers.{index}.mixer.q_proj.weight" for index in range(2))}
    others = dict(mup.named_parameters())
    for name, parameter in plain.named_parameters():
        assert name in zeros or torch.equal(parameter, others[name]), name
    assert mup.readout_multiplier == 1.0
    rates = [
        [(group["role"], group["lr"], group["weight_decay"]) for group in optimizer_groups(m)] for m in (plain, mup)
    ]
    assert rates[0] == rates[1]


def test_a_written_attention_scale_stands() -> None:
    own = {"layer_templates.decoder.mixer.attention.scale": 0.3}
    for given, expected in ((own, 0.3), ({}, 8 / 64)):
        model = es.compile_to_hf_model(es.normalize_to_ir(spec_of(256, 4, **MUP, **given)))
        assert model.model.layers[0].mixer.scaling == pytest.approx(expected)


def test_latent_attention_and_normalised_queries_follow() -> None:
    mixer = "layer_templates.decoder.mixer.attention"
    latent = es.compile_to_hf_model(es.normalize_to_ir(spec_of(256, 4, **MUP, **{f"{mixer}.latent_dim": 32})))
    layer = latent.model.layers[0].mixer
    assert layer.scaling == pytest.approx(8 / (64 + layer.rope_dim))
    assert not layer.q_proj.weight.any()
    normed = es.compile_to_hf_model(es.normalize_to_ir(spec_of(256, 4, **MUP, **{f"{mixer}.qk_norm": "head"})))
    # The direction of a zero is none.
    assert float(normed.model.layers[0].mixer.q_proj.weight.detach().std()) == pytest.approx(0.08 / 2**0.5, rel=0.05)


def test_the_ir_and_the_spec_that_it_prints_agree() -> None:
    from eulerstack.ir.printer import to_spec

    ir = es.normalize_to_ir(spec_of(256, 4, **MUP))
    assert es.normalize_to_ir(to_spec(ir)) == ir


MIXERS: dict[str, Any] = {
    "latent attention": lambda width: {"type": "attention", "attention": {"latent_dim": width // 4}},
    "normalised queries": lambda width: {"type": "attention", "attention": {"qk_norm": "head"}},
    "retnet": lambda width: {"type": "retnet", "retnet": {}},
    "mamba1": lambda width: {"type": "mamba", "mamba": {"variant": "mamba1"}},
    "mamba2": lambda width: {"type": "mamba", "mamba": {"variant": "mamba2"}},
    "hyena": lambda width: {"type": "hyena", "hyena": {}},
}


@pytest.mark.parametrize("name", MIXERS)
def test_with_every_mixer_blocks_move_alike_and_logits_never_grow(name: str) -> None:
    mixer = "layer_templates.decoder.mixer"
    found = slopes([movements(spec_of(width, width // 64, **MUP, **{mixer: MIXERS[name](width)})) for width in WIDTHS])
    logits = found.pop("logits")
    assert all(abs(slope) < 0.15 for slope in found.values()), found
    assert -0.5 < logits < 0.1


def test_a_family_of_transformers_has_no_words_for_it() -> None:
    from pathlib import Path

    from eulerstack.compiler.family import config_for
    from eulerstack.errors import CompatibilityError
    from eulerstack.plugins.manager import get_registry

    importers = get_registry().importers()
    config_for(es.normalize_to_ir(spec_of(256, 4)), importers, Path("spec.yml"))
    with pytest.raises(CompatibilityError, match="mup"):
        config_for(es.normalize_to_ir(spec_of(256, 4, **MUP)), importers, Path("spec.yml"))
