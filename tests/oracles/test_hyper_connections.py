"""Hyper-connections against the package of that name, forward and backward.

Its weights of a stream follow from that stream alone, ours from all of them, normalised together. So ours are given
zeros outside of each stream's own part, and streams of one length. Its Sinkhorn ends with rows and ours with columns;
both have the same limit.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
mhc = pytest.importorskip("hyper_connections.mHCv2", reason="hyper-connections is not installed: make oracles")

from eulerstack_mixers.modules.hyper_connection import StreamConnection  # noqa: E402

STREAMS, WIDTH, PASSES = 3, 10, 500


def pair() -> tuple[Any, Any]:
    """The package's module with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = mhc.ManifoldConstrainedHyperConnections(STREAMS, dim=WIDTH, layer_index=0, sinkhorn_iters=PASSES)
    config = SimpleNamespace(hidden_size=WIDTH, architecture={"model": {"norm_eps": 0.0}})
    params = {"expand": STREAMS, "mixing": "birkhoff", "sinkhorn_iters": PASSES, "eps": 0.0}
    ours = StreamConnection(config, params)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        theirs.norm.gamma.zero_()
        fn = torch.zeros(2 * STREAMS + STREAMS**2, STREAMS, WIDTH)
        for stream in range(STREAMS):
            read, mix = theirs.dynamic_alpha_fn[0, :, 0], theirs.dynamic_alpha_fn[0, :, 1:]
            fn[stream, stream] = read
            fn[STREAMS + stream, stream] = theirs.dynamic_beta_fn[:, 0]
            fn[2 * STREAMS + stream * STREAMS : 2 * STREAMS + (stream + 1) * STREAMS, stream] = mix.T
        ours.fn.copy_(fn.flatten(1))
        ours.base.copy_(
            torch.cat((theirs.static_alpha[:, 0], theirs.static_beta.flatten(), theirs.static_alpha[:, 1:].flatten()))
        )
        ours.scale.copy_(torch.stack((theirs.pre_branch_scale[0], theirs.h_post_scale, theirs.residual_scale[0])))
    return theirs, ours


def test_reading_writing_and_mixing_are_the_packages_forward_and_backward() -> None:
    theirs, ours = pair()
    streams = torch.randn(2, 5, STREAMS, WIDTH)
    streams = (streams / streams.norm(dim=-1, keepdim=True) * 4).requires_grad_()
    branch_input, join = theirs(streams)
    expected = join(torch.tanh(branch_input))
    own_input, write, mixed = ours(streams)
    output = mixed + write.unsqueeze(-1) * torch.tanh(own_input).unsqueeze(-2)
    torch.testing.assert_close(own_input, branch_input, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(expected)
    (output * probe).sum().backward()
    (expected * probe).sum().backward()
    close = {"atol": 1e-4, "rtol": 1e-4}
    alpha, beta = theirs.static_alpha.grad, theirs.static_beta.grad.flatten()
    torch.testing.assert_close(ours.base.grad, torch.cat((alpha[:, 0], beta, alpha[:, 1:].flatten())), **close)
    scales = (theirs.pre_branch_scale.grad[0], theirs.h_post_scale.grad, theirs.residual_scale.grad[0])
    torch.testing.assert_close(ours.scale.grad, torch.stack(scales), **close)
    # What each stream has by itself here, all have in common there.
    read, write_fn, mix = ours.fn.grad.unflatten(1, (STREAMS, WIDTH)).split((STREAMS, STREAMS, STREAMS**2))
    own = torch.arange(STREAMS)
    torch.testing.assert_close(read[own, own].sum(0), theirs.dynamic_alpha_fn.grad[0, :, 0], **close)
    torch.testing.assert_close(write_fn[own, own].sum(0), theirs.dynamic_beta_fn.grad[:, 0], **close)
    mix = mix.unflatten(0, (STREAMS, STREAMS))[own, :, own].sum(0)
    torch.testing.assert_close(mix.T, theirs.dynamic_alpha_fn.grad[0, :, 1:], **close)
