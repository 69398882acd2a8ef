"""Test-time training and Hyena against the files that their authors published, which no package index has.

The folder `EULERSTACK_ORACLE_FILES` holds `ttt.py` of github.com/test-time-training/ttt-lm-pytorch (cd831db10c8c) and
`standalone_hyena.py` of github.com/HazyResearch/safari (02220c69d247).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import eulerstack as es  # noqa: E402

WIDTH, HEADS = 36, 3


def published(name: str) -> Any:
    """The module of an author's file."""
    folder = os.environ.get("EULERSTACK_ORACLE_FILES")
    if not folder:
        pytest.skip(f"EULERSTACK_ORACLE_FILES is not set: the folder of {name}")
    if name == "standalone_hyena.py":
        pytest.importorskip("einops")
    spec = importlib.util.spec_from_file_location(Path(name).stem, Path(folder) / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mixer_of(mixer: dict[str, Any], max_seq_len: int = 64) -> Any:
    """Our mixer in float64, with parameters that are not what they begin with."""
    spec = {
        "schema_version": 1,
        "model": {
            "name": "one", "d_model": WIDTH, "vocab_size": 40, "max_seq_len": max_seq_len, "n_heads": HEADS,
            "norm_eps": 1e-6, "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "none"},
        "layer_templates": {"one": {"mixer": mixer, "ffn": {"type": "none"}}},
        "layer_schedule": [{"template": "one"}],
        "head": {"type": "causal_lm"},
    }  # fmt: skip
    module = es.compile_to_hf_model(es.normalize_to_ir(spec)).model.layers[0].mixer.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise * (0.3 if parameter.ndim < 2 else 0.5 * parameter.shape[-1] ** -0.5))
    return module


def check(ours: Any, theirs: Any, time: int, pairs: list[tuple[Any, Any]], **given: Any) -> None:
    """Equal outputs, gradients of inputs, and gradients of `pairs` of a parameter of theirs and a function of ours.

    The files compute some constants in float32.
    """
    inputs = torch.randn(2, time, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    first, second = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    output, expected = ours(first), theirs(second, **given)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
    assert output.std() > 0.05
    output.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=0)
    for parameter, of_ours in pairs:
        torch.testing.assert_close(of_ours(ours).grad.view_as(parameter), parameter.grad, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("kind", "mini_batch", "time"), [("linear", 5, 13), ("linear", 1, 6), ("mlp", 4, 11)])
def test_test_time_training_is_the_authors_forward_and_backward(kind: str, mini_batch: int, time: int) -> None:
    module = published("ttt.py")
    words = {"inner_model": {"type": kind}, "mini_batch": mini_batch, "inner_lr": 0.8}
    ours = mixer_of({"type": "ttt_layer", "ttt": words})
    config = module.TTTConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, mini_batch_size=mini_batch, use_gate=False, share_qk=False,
        ttt_base_lr=0.8, scan_checkpoint_group_size=0,
    )  # fmt: skip
    theirs = {"linear": module.TTTLinear, "mlp": module.TTTMLP}[kind](config, 0).double()
    names = {
        **{f"{name}_proj.weight": f"{name}_proj.weight" for name in "qkvo"},
        "learnable_ttt_lr_weight": "rate_proj.weight",
        "learnable_ttt_lr_bias": "rate_proj.bias",
        "learnable_token_idx": "token_rate",
        "ttt_norm_weight": "inner_norm_weight",
        "ttt_norm_bias": "inner_norm_bias",
        "post_norm.weight": "post_norm.weight",
        "post_norm.bias": "post_norm.bias",
    }
    own = dict(ours.named_parameters())
    for layer in range(len(ours.inner_weights)):
        names |= {f"W{layer + 1}": f"inner_weights.{layer}", f"b{layer + 1}": f"inner_biases.{layer}"}
    found = dict(theirs.named_parameters())
    assert found.keys() == names.keys() and set(names.values()) == own.keys()
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(own[names[name]].view_as(parameter))
    # At position 0 their rotation, which ours does without, is none.
    positions = torch.zeros(2, time, dtype=torch.long)
    pairs = [(parameter, lambda ours, name=names[name]: ours.get_parameter(name)) for name, parameter in found.items()]
    check(ours, theirs, time, pairs, position_ids=positions)


@pytest.mark.parametrize(("depth", "length", "time"), [(2, 32, 19), (3, 24, 24), (4, 20, 7)])
def test_hyena_is_the_authors_operator_forward_and_backward(depth: int, length: int, time: int) -> None:
    words = {"depth": depth, "filter_hidden": 6, "filter_emb": 5}
    module, ours = published("standalone_hyena.py"), mixer_of({"type": "hyena", "hyena": words}, length)
    with torch.no_grad():
        # Slow sines: fast ones blow up the differences of times that the file has in float32.
        ours.filter.frequency.mul_(0.1)
    theirs = module.HyenaOperator(WIDTH, length, order=depth, filter_order=6, emb_dim=5).double()
    own, layers = ours.filter, theirs.filter_fn.implicit_filter
    copies = [
        (theirs.in_proj.weight, ours.in_proj.weight),
        (theirs.in_proj.bias, ours.in_proj.bias),
        (theirs.out_proj.weight, ours.out_proj.weight),
        (theirs.out_proj.bias, ours.out_proj.bias),
        # Theirs begins with the oldest token.
        (theirs.short_filter.weight, ours.short_weight.flip(-1)),
        (theirs.short_filter.bias, ours.short_bias),
        (theirs.filter_fn.bias, own.skip),
        (layers[0].weight, own.input_weight),
        (layers[0].bias, own.input_bias),
        (layers[1].freq, own.frequency),
        (layers[2].weight, own.hidden_weight[0]),
        (layers[2].bias, own.hidden_bias[0]),
        (layers[4].weight, own.hidden_weight[1]),
        (layers[4].bias, own.hidden_bias[1]),
        (layers[6].weight, own.output_weight),
    ]
    with torch.no_grad():
        for parameter, values in copies:
            parameter.copy_(values.reshape(parameter.shape))
    pairs = [
        (theirs.in_proj.weight, lambda ours: ours.in_proj.weight),
        (theirs.filter_fn.bias, lambda ours: ours.filter.skip),
        (layers[1].freq, lambda ours: ours.filter.frequency),
        (layers[6].weight, lambda ours: ours.filter.output_weight),
    ]
    check(ours, theirs, time, pairs)
