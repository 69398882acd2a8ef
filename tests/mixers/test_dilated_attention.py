"""Which tokens a dilated window sees, and what its cache keeps."""

from __future__ import annotations

import pytest
import torch

from tests.mixers.layers import run_layer
from tests.model.mixers.attention import of
from tests.model.specs import built, changed, tiny_spec, tokens


@pytest.mark.parametrize(("window", "dilation"), [(8, 3), (7, 3), (9, 2), (3, 2), (40, 6)])
def test_a_token_sees_every_nth_one_of_its_window_counted_from_itself(window: int, dilation: int) -> None:
    words = of(window_mode="dilated", window=window, window_dilation=dilation)
    model = built(changed(tiny_spec(), words)).double()
    states = torch.randn(1, 19, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = run_layer(model, states)
    for now in range(19):
        (gradient,) = torch.autograd.grad(output[0, now].square().sum(), states, retain_graph=True)
        seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
        assert seen == [then for then in range(now + 1) if now - then < window and (now - then) % dilation == 0]


@pytest.mark.parametrize(("window", "dilation", "kept"), [(8, 3, 6), (7, 3, 6), (9, 2, 8), (3, 2, 2)])
def test_the_cache_keeps_no_token_that_nobody_will_see(window: int, dilation: int, kept: int) -> None:
    model = built(changed(tiny_spec(), of(window_mode="dilated", window=window, window_dilation=dilation)))
    with torch.no_grad():
        cache = model(tokens(), use_cache=True).past_key_values
    assert [layer.keys.shape[-2] for layer in cache.layers] == [kept] * 3


def test_without_gaps_it_would_be_the_sliding_window() -> None:
    """Two tokens' distance and a window of 3: the query and the second token before it."""
    model = built(changed(tiny_spec(), of(window_mode="dilated", window=3, window_dilation=2)))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(tokens(), output_attentions=True).attentions[0]
    visible = weights[0, 0] > 0
    assert torch.equal(visible, torch.eye(17, dtype=torch.bool) | torch.eye(17, dtype=torch.bool).roll(-2, 1).tril())
