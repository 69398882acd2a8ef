"""A window that is computed chunk by chunk gives the numbers of one that is computed whole."""

from __future__ import annotations

import pytest
import torch

from eulerstack_mixers.modules import window_chunks
from tests.model.mixers import compressed_attention, native_sparse_attention
from tests.model.specs import built, tokens

VARIANTS = {**compressed_attention.VARIANTS, **native_sparse_attention.VARIANTS}


@pytest.mark.parametrize("name", ["hca", "hca_sinks", "csa_full", "nsa", "nsa_shared", "nsa_biases"])
@pytest.mark.parametrize("time", [9, 20, 31])
def test_chunks_of_the_window_change_nothing(name: str, time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_chunks, "LEAST_CHUNK", 1)
    model = built(VARIANTS[name]).double()
    ids = tokens(time=time + 7)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    mask[1, 4:6] = 0
    packed = torch.cat((torch.arange(time), torch.arange(7)))[None]
    results = []
    for pays in (property(lambda chunks: False), property(lambda chunks: chunks.number > 1)):
        monkeypatch.setattr(window_chunks.WindowChunks, "pays", pays)
        model.zero_grad()
        plain = model(ids, use_cache=False).logits
        apart = model(ids[:1], position_ids=packed, use_cache=False).logits
        (plain.square().sum() + apart.square().sum()).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            padded = model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
            cache = model(ids[:, :5], use_cache=True).past_key_values
            continued = model(ids[:, 5:], past_key_values=cache).logits
        results.append([plain.detach(), apart.detach(), padded, continued, *gradients])
    for dense, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, dense, atol=1e-8, rtol=1e-8)
