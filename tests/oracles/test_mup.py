"""µP against the package of its authors, mup 1.0.0, on the same network."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
mup = pytest.importorskip("mup", reason="mup is not installed: make oracles")

import eulerstack as es  # noqa: E402
from eulerstack.hf import optimizer_groups  # noqa: E402
from tests.model.specs import changed, tiny_spec, tokens  # noqa: E402

BASE, WIDTH = 32, 128
RATE, DECAY = 3e-3, 0.2


def model_of(width: int, **changes: Any) -> Any:
    """Two layers of this width, untied, with the attention scale of µP written out."""
    sizes = {
        "model.d_model": width,
        "model.n_heads": width // 16,
        "model.n_kv_heads": width // 16,
        "model.head_dim": None,
        "model.d_ff": 2 * width,
        "layer_schedule.0.repeat": 2,
        "layer_templates.decoder.mixer.attention.scale": 8 / 16,
        "head.tie_weights": False,
        "training_hints.lr_peak": RATE,
        "training_hints.weight_decay": DECAY,
    }
    return es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), {**sizes, **changes})), seed=0)


def theirs() -> Any:
    """The network in the standard parametrization, handed to mup."""

    def with_their_readout(width: int) -> Any:
        model = model_of(width)
        model.lm_head = mup.MuReadout(width, model.config.vocab_size, bias=False)
        return model

    model = with_their_readout(WIDTH)
    mup.set_base_shapes(model, with_their_readout(BASE), delta=with_their_readout(2 * BASE), rescale_params=False)
    return model


def ours() -> Any:
    return model_of(WIDTH, **{"training_hints.scaling": {"parametrization": "mup", "base_width": BASE}})


def test_learning_rates_and_decays_of_all_parameters_are_theirs() -> None:
    model = theirs()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {
        names[id(parameter)]: (group["lr"], group["lr"] * group["weight_decay"])
        for group in mup.MuAdamW(model.parameters(), lr=RATE, weight_decay=DECAY).param_groups
        for parameter in group["params"]
    }
    mine = ours()
    names = {id(parameter): name for name, parameter in mine.named_parameters()}
    for group in optimizer_groups(mine):
        for parameter in group["params"]:
            rate, decayed = expected.pop(names[id(parameter)])
            assert group["lr"] == pytest.approx(rate), names[id(parameter)]
            # Theirs decays norms too.
            assert group["role"] == "norm" or group["lr"] * group["weight_decay"] == pytest.approx(decayed)
    assert not expected


def test_logits_and_hidden_states_of_the_same_weights_are_theirs() -> None:
    mine, other = ours(), theirs()
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        other.load_state_dict(mine.state_dict())
        ids = tokens()
        torch.testing.assert_close(mine(ids).logits, other(ids).logits, atol=1e-6, rtol=1e-5)


def test_deviations_of_the_initial_weights_are_theirs() -> None:
    mine, other = ours(), theirs()
    drawn = dict(mine.named_parameters())
    for name, parameter in other.named_parameters():
        if parameter.ndim != 2:
            continue
        mup.init.normal_(parameter, std=0.02)
        # Their appendix has queries and the readout begin at 0, which the package leaves to its user.
        if not drawn[name].any():
            assert name.endswith(("q_proj.weight", "lm_head.weight"))
            continue
        assert float(drawn[name].detach().std()) == pytest.approx(float(parameter.detach().std()), rel=0.05), name


def test_steps_of_training_are_theirs() -> None:
    mine, other = ours(), theirs()
    other.load_state_dict(mine.state_dict())
    hints = {"lr": RATE, "betas": (0.9, 0.95), "weight_decay": 0.0}
    groups = [{**group, "weight_decay": 0.0} for group in optimizer_groups(mine)]
    steps = [(mine, torch.optim.AdamW(groups)), (other, mup.MuAdamW(other.parameters(), **hints))]
    ids = tokens()
    for _ in range(3):
        for model, optimizer in steps:
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(mine(ids).logits, other(ids).logits, atol=1e-4, rtol=1e-3)
