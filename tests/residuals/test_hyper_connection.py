"""Hyper-connections are DeepSeek-V4's streams and the naive ones, and begin as the plain residual."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from transformers import DeepseekV4Config  # noqa: E402
from transformers.models.deepseek_v4.modeling_deepseek_v4 import (  # noqa: E402
    DeepseekV4DecoderLayer,
    DeepseekV4HyperHead,
    DeepseekV4RMSNorm,
)

import eulerstack as es  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.dsl.source import parse_text  # noqa: E402
from eulerstack.errors import CompatibilityError, ValidationError  # noqa: E402
from eulerstack.hf.streams import StreamRuns  # noqa: E402
from eulerstack.ir.printer import print_ir  # noqa: E402
from eulerstack_mixers.modules.hyper_connection import StreamConnection, sinkhorn  # noqa: E402
from eulerstack_mixers.reference.hyper_connection import (  # noqa: E402
    doubly_stochastic,
    hyper_connection,
    join_streams,
)
from tests.model.mixers.hyper_connection import EVERY_MIXING, RESIDUAL, VARIANTS, between, spec  # noqa: E402
from tests.model.specs import built, changed, enliven, tiny_spec, tokens  # noqa: E402

WIDTH, STREAMS, LAYERS = 36, 4, 3
POSITION = "layer_templates.decoder.norm.position"


class Alone(nn.Module):
    """One matrix in place of attention or experts."""

    def __init__(self, returns: type = torch.Tensor):
        super().__init__()
        self.proj, self.returns = nn.Linear(WIDTH, WIDTH, bias=False), returns

    def forward(self, hidden_states: Any, **kwargs: Any) -> Any:
        output = torch.tanh(self.proj(hidden_states))
        return (output, None) if self.returns is tuple else output


def deepseek(iterations: int, eps: float) -> nn.Module:
    """DeepSeek-V4's layers with one matrix for each block, its head of streams and its last norm."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 3, "head_dim": 12}
    widths = {"q_lora_rank": 12, "o_lora_rank": 12, "o_groups": 3, "qk_rope_head_dim": 4, "moe_intermediate_size": 8}
    streams = {"hc_mult": STREAMS, "hc_sinkhorn_iters": iterations, "hc_eps": eps, "rms_norm_eps": 1e-5}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "vocab_size": 11}
    config = DeepseekV4Config(**sizes, **widths, **streams, **experts)
    layers = nn.ModuleList([DeepseekV4DecoderLayer(config, index) for index in range(LAYERS)])
    for layer in layers:
        layer.self_attn, layer.mlp = Alone(tuple), Alone()
    head, norm = DeepseekV4HyperHead(config), DeepseekV4RMSNorm(WIDTH, eps=1e-5)
    model = nn.ModuleDict({"layers": layers, "head": head, "norm": norm})
    enliven(model)
    return model


NAMES = {
    "attn_hc": "residual.mixer_streams",
    "ffn_hc": "residual.ffn_streams",
    "self_attn": "mixer",
    "mlp": "ffn",
    "input_layernorm": "mixer_norm",
    "post_attention_layernorm": "ffn_norm",
    "head": "stream_ends.0",
}


def ours_like(theirs: nn.Module, **hyper: Any) -> Any:
    """Our stack with the same matrices in place of mixers and feed-forward blocks, and the same weights."""
    stack = built(spec(**hyper)).model
    for layer in stack.layers:
        layer.mixer, layer.ffn = Alone(tuple), Alone()
    own = {}
    for name, value in theirs.state_dict().items():
        parts = [NAMES.get(part, part) for part in name.split(".")]
        own[".".join(parts)] = value
    result = stack.load_state_dict(own, strict=False)
    assert not result.unexpected_keys and set(result.missing_keys) == {"embed_tokens.weight"}
    return stack


@pytest.mark.parametrize(("iterations", "eps"), [(20, 1e-6), (1, 1e-6), (3, 0.05)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streams_are_those_of_deepseek_v4_forward_and_backward(iterations: int, eps: float, dtype: Any) -> None:
    theirs = deepseek(iterations, eps)
    ours = ours_like(theirs, expand=STREAMS, sinkhorn_iters=iterations, eps=eps)
    theirs.to(dtype), ours.to(dtype)
    inputs = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for model in (theirs, ours):
        states = inputs.clone().requires_grad_()
        if model is ours:
            output = model(inputs_embeds=states, use_cache=False).last_hidden_state
        else:
            streams = states.unsqueeze(2).expand(-1, -1, STREAMS, -1).contiguous()
            for layer in model["layers"]:
                streams = layer(streams)
            output = model["norm"](model["head"](streams))
        probe = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        (output * probe).sum().backward()
        gradients = {
            ".".join(NAMES.get(part, part) for part in name.split(".")): each.grad
            for name, each in model.named_parameters()
            if each.grad is not None
        }
        results.append((output, states.grad, gradients))
    (output, grad, gradients), (own, own_grad, own_gradients) = results
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype is torch.float32 else {"atol": 0.0, "rtol": 0.0}
    torch.testing.assert_close(own, output, **tolerance)
    assert gradients.keys() == own_gradients.keys() and len(gradients) == LAYERS * 10 + 4
    if dtype is torch.float32:
        torch.testing.assert_close(own_grad, grad, **tolerance)
        for name, gradient in gradients.items():
            scale = float(gradient.abs().max().clamp(min=1.0))
            torch.testing.assert_close(own_gradients[name] / scale, gradient / scale, msg=name, **tolerance)


@pytest.mark.parametrize("position", ["pre", "post", "output", "sandwich"])
@pytest.mark.parametrize("mixing", EVERY_MIXING)
def test_a_model_of_streams_is_the_naive_one_forward_and_backward(mixing: str, position: str) -> None:
    case = changed(spec(position, **EVERY_MIXING[mixing]), {f"{RESIDUAL}.scaling": 0.7})
    ir, model = es.normalize_to_ir(case), built(case).double()
    base, params = model.model, ir.layers[0].residual.params
    ids = tokens(batch=1, time=6)
    calls: list[list[tuple[Any, Any]]] = []
    for layer in base.layers:
        found: list[tuple[Any, Any]] = []
        calls.append(found)
        for block in (layer.mixer, layer.ffn):
            block.register_forward_hook(lambda module, given, output, into=found: into.append((given[0], output)))
    output = base(ids, use_cache=False).last_hidden_state
    streams = torch.stack([base.embed_tokens(ids)[0]] * params["expand"], 1)
    for layer, found in zip(base.layers, calls, strict=True):
        outputs = [each[1][0] if isinstance(each[1], tuple) else each[1] for each in found]
        branches = [
            lambda states, given=each[0], fixed=fixed: _same(states, given[0], fixed[0])
            for each, fixed in zip(found, outputs, strict=True)
        ]
        norms = {name: child for name, child in layer.named_children() if name.endswith("norm")}
        weights = dict(layer.residual.named_parameters())
        streams = hyper_connection(streams, *branches, norms, position, weights, params, ir.model["norm_eps"], 0.7)
    joined = join_streams(streams, dict(base.stream_ends[0].named_parameters()), params, ir.model["norm_eps"])
    expected = base.norm(joined)[None]
    torch.testing.assert_close(output, expected, atol=1e-10, rtol=1e-10)
    probe = torch.randn_like(output)
    inputs = [each for name, each in base.named_parameters() if "stream" in name]
    mine, naive = (torch.autograd.grad((each * probe).sum(), inputs, retain_graph=True) for each in (output, expected))
    for one, other in zip(mine, naive, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def _same(states: Any, given: Any, output: Any) -> Any:
    """The block's output, when it is given what the model gave it; gradients flow on through the model's graph."""
    torch.testing.assert_close(states, given, atol=1e-10, rtol=1e-10)
    return output


def test_the_matrix_of_birkhoff_is_doubly_stochastic_and_the_naive_one() -> None:
    logits = torch.randn(5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = sinkhorn(logits, 200, 0.0)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(5, 4, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(-2), torch.ones(5, 4, dtype=torch.float64))
    for each in logits:
        torch.testing.assert_close(sinkhorn(each, 3, 0.01), doubly_stochastic(each, 3, 0.01))


def test_weights_of_streams_are_computed_in_float32() -> None:
    model = built(spec(expand=4)).to(torch.bfloat16)
    seen: list[Any] = []
    layer: Any = next(each for each in model.modules() if isinstance(each, StreamConnection))
    layer.mix.register_forward_hook(lambda module, given, output: seen.append((given[0].dtype, output.dtype)))
    model(tokens())
    assert seen == [(torch.float32, torch.bfloat16)]


@pytest.mark.parametrize("position", ["pre", "post", "output", "sandwich"])
@torch.no_grad()
def test_with_one_stream_it_is_the_plain_residual_to_the_bit(position: str) -> None:
    plain, one = built(changed(tiny_spec(), {POSITION: position})), built(spec(position, expand=1))
    assert plain.state_dict().keys() == one.state_dict().keys()
    assert torch.equal(plain(tokens()).logits, one(tokens()).logits)


@pytest.mark.parametrize("position", ["pre", "post", "output", "sandwich"])
@pytest.mark.parametrize("mixing", EVERY_MIXING)
@torch.no_grad()
def test_before_training_it_is_the_plain_residual_but_for_the_computed_weights(mixing: str, position: str) -> None:
    streams = es.compile_to_hf_model(es.normalize_to_ir(spec(position, **EVERY_MIXING[mixing])))
    plain = es.compile_to_hf_model(es.normalize_to_ir(changed(tiny_spec(), {POSITION: position})))
    plain.load_state_dict({name: value for name, value in streams.state_dict().items() if "stream" not in name})
    expected = plain(tokens()).logits
    assert 0 < (streams(tokens()).logits - expected).abs().max() < 0.05
    for name, parameter in streams.named_parameters():
        if name.endswith("scale"):
            parameter.zero_()
    torch.testing.assert_close(streams(tokens()).logits, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_of_layers_have_their_streams_and_the_last_has_none() -> None:
    output = built(between())(tokens(), output_hidden_states=True)
    plain, four, two = (2, 17, WIDTH), (2, 17, 4, WIDTH), (2, 17, 2, WIDTH)
    shapes = [tuple(state.shape) for state in output.hidden_states]
    # What the first layer reads, then what each layer gives, the last one after the final norm.
    assert shapes == [four, four, four, two, two, plain, four, plain]


def test_streams_go_on_while_residual_and_number_stay_and_end_where_they_change() -> None:
    stack = built(between()).model
    assert stack.stream_ends.runs == [0, 0, 1, 1, None, 2, None]
    assert [each.n for each in stack.stream_ends] == [4, 2, 4]
    assert stack.layers[3].residual.ffn_streams is None
    assert built(spec(expand=1)).model.stream_ends is None


@pytest.mark.parametrize("name", VARIANTS)
def test_declared_parameters_are_the_built_ones(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert sum(each.numel() for each in built(VARIANTS[name]).parameters()) == es.count_parameters(ir)


def test_a_branch_pays_for_weights_reading_writing_and_mixing() -> None:
    def extra(**hyper: Any) -> float:
        one, plain = (model_cost(es.normalize_to_ir(each)) for each in (spec(**hyper), tiny_spec()))
        return one.flops_per_token(10) - plain.flops_per_token(10)

    n, width, branches = 4, WIDTH, 2 * LAYERS
    ends = 2 * n * n * width + 2 * n * width
    read_write = 4 * n * width
    assert extra(expand=n) == branches * (2 * (n * n + 2 * n) * n * width + read_write + 2 * n * n * width) + ends
    low = 2 * 4 * n * n * width + read_write + 4 * n * width
    assert extra(expand=n, mixing="learned_lowrank") == branches * low + ends
    assert extra(expand=1) == 0


@pytest.mark.parametrize("mixing", ["unconstrained", "learned_lowrank"])
def test_passes_that_nothing_makes_are_refused(mixing: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec(mixing=mixing, sinkhorn_iters=20))
    (problem,) = caught.value.diagnostics
    assert problem.path == f"{RESIDUAL}.hyper.sinkhorn_iters"
    es.validate_v2(spec(mixing=mixing))


def test_streams_beside_another_residual_are_an_unknown_word() -> None:
    with pytest.raises(ValidationError) as caught:
        es.validate_v2(changed(tiny_spec(), {RESIDUAL: {"type": "sequential", "hyper": {"expand": 2}}}))
    assert caught.value.diagnostics[0].path == f"{RESIDUAL}.hyper"


def test_a_schedule_may_change_the_scaling_and_the_ir_prints_and_reads_back() -> None:
    case = changed(spec(expand=2), {"layer_schedule": [
        {"template": "decoder", "repeat": 2}, {"template": "decoder", "override": {"residual": {"scaling": 0.5}}}
    ]})  # fmt: skip
    ir = es.normalize_to_ir(case)
    assert [layer.residual.params["scaling"] for layer in ir.layers] == [1.0, 1.0, 0.5]
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir


def test_a_run_of_layers_takes_its_ends_from_the_residual_of_its_last_layer() -> None:
    params = {"expand": 2, "mixing": "birkhoff", "sinkhorn_iters": 1, "eps": 0.25}
    blocks = [
        {"residual": {"type": "hyper_connection", "params": {**params, "eps": eps}, "residual_streams": 2}}
        for eps in (0.25, 0.5)
    ]
    config = SimpleNamespace(hidden_size=8, architecture={"model": {"norm_eps": 1e-5}, "blocks": blocks})
    assert [each.eps for each in StreamRuns(config, [0, 1])] == [0.5]
