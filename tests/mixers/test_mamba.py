"""Mamba-1 and Mamba-2 against their recurrence, transformers' classes, and what the declaration promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import FalconMambaConfig, JambaConfig, Mamba2Config, MambaConfig, NemotronHConfig
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
from transformers.models.jamba.modeling_jamba import JambaMambaMixer
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError
from eulerstack_mixers.modules.mamba1 import Mamba1, SelectiveScan
from eulerstack_mixers.modules.mamba2 import Mamba2, chunked_scan, scan_step
from eulerstack_mixers.reference.mamba import selective_state_space, short_convolution
from tests.model.mixers.mamba import FFN, MIXER, VARIANTS, mamba
from tests.model.specs import built, changed, tiny_spec, tokens
from tests.oracles.kernels import products_in_tf32

torch.set_num_threads(1)
WIDTH = 24
COMMON = {
    "expand": 2.0,
    "d_conv": 4,
    "conv_bias": True,
    "proj_bias": False,
    "dt_min": 0.001,
    "dt_max": 0.1,
    "dt_floor": 0.0,
    "chunk_size": 7,
    "norm_eps": 1e-5,
}


class Config:
    hidden_size = WIDTH


def mixer1(**words: Any) -> Mamba1:
    return Mamba1(Config, {**COMMON, "d_state": 5, "dt_rank": 3, "bcdt_norm": "none", **words}, 0)


def mixer2(**words: Any) -> Mamba2:
    return Mamba2(Config, {**COMMON, "d_state": 6, "head_dim": 8, "n_groups": 2, "norm": True, **words}, 0)


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=index, scale=0.3))


SHARED_NAMES = {"dt_layernorm": "dt_norm", "b_layernorm": "b_norm", "c_layernorm": "c_norm"}


def theirs_and_ours(kind: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A mixer of transformers and ours with its weights, both in float32."""
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 1}
    theirs: torch.nn.Module
    if kind == "mamba":
        theirs, ours = MambaMixer(MambaConfig(state_size=5, time_step_rank=3, **sizes), 0), mixer1()
    elif kind == "falcon_mamba":
        config = FalconMambaConfig(state_size=5, time_step_rank=3, **sizes)
        theirs, ours = FalconMambaMixer(config, 0, False), mixer1(bcdt_norm="weightless", norm_eps=1e-6)
    elif kind == "jamba":
        config = JambaConfig(mamba_d_state=5, mamba_dt_rank=3, **sizes)
        theirs, ours = JambaMambaMixer(config, 0), mixer1(bcdt_norm="learned", norm_eps=1e-6)
    elif kind == "nemotron_h":
        config = NemotronHConfig(mamba_num_heads=6, mamba_head_dim=8, ssm_state_size=6, n_groups=2, chunk_size=8,
                                 time_step_min=0.5, hidden_size=WIDTH)  # fmt: skip
        theirs, ours = NemotronHMamba2Mixer(config, 0), mixer2(dt_floor=0.5)
    else:
        config = Mamba2Config(num_heads=6, head_dim=8, state_size=6, n_groups=2, chunk_size=8, **sizes)
        theirs, ours = Mamba2Mixer(config, 0), mixer2()
    fill(theirs)
    state = {
        ".".join(SHARED_NAMES.get(part, part) for part in name.split(".")): tensor
        for name, tensor in theirs.state_dict().items()
    }
    ours.load_state_dict(state)
    return theirs, ours


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "jamba", "mamba2", "nemotron_h"])
@pytest.mark.parametrize("time", [1, 6, 29])
def test_outputs_and_gradients_are_those_of_transformers(kind: str, time: int) -> None:
    hidden_states = noise(2, time, WIDTH).float()
    found = []
    for module in theirs_and_ours(kind):
        inputs = hidden_states.clone().requires_grad_()
        outputs = module(inputs)
        outputs.square().sum().backward()
        gradients = {
            ".".join(SHARED_NAMES.get(part, part) for part in name.split(".")): parameter.grad
            for name, parameter in module.named_parameters()
        }
        found.append({"outputs": outputs.detach(), "inputs": inputs.grad, **gradients})
    theirs, ours = found
    assert theirs.keys() == ours.keys() and theirs["outputs"].std() > 0.01
    for name, tensor in theirs.items():
        assert (tensor - ours[name]).abs().max() <= 1e-5 * max(1.0, float(tensor.abs().max())), name


def scan_inputs(kind: str, time: int) -> tuple[torch.Tensor, ...]:
    """x, Δ, A, B, C and a state for one variant's own scan, in float64."""
    if kind == "mamba1":
        return (
            noise(2, time, 10),
            noise(2, time, 10, seed=1).exp(),
            -noise(10, 5, seed=2).exp(),
            noise(2, time, 5, seed=3),
            noise(2, time, 5, seed=4),
            noise(2, 10, 5, seed=5),
        )
    return (
        noise(2, time, 6, 4),
        noise(2, time, 6, seed=1).exp(),
        -noise(6, seed=2).exp(),
        noise(2, time, 3, 5, seed=3),
        noise(2, time, 3, 5, seed=4),
        noise(2, 6, 4, 5, seed=5),
    )


def fast(kind: str, arguments: tuple[torch.Tensor, ...], chunk: int, sequence_ids: Any = None) -> Any:
    x, steps, rates, b, c, state = arguments
    if kind == "mamba2":
        return chunked_scan(x, steps, rates, b, c, state, sequence_ids, chunk)
    carry = None
    if sequence_ids is not None:
        carry = torch.nn.functional.pad(sequence_ids[:, 1:] == sequence_ids[:, :-1], (1, 0), value=True).double().t()
    outputs, last = SelectiveScan.apply(
        steps.transpose(0, 1), (steps * x).transpose(0, 1), rates.t(), b.transpose(0, 1), c.transpose(0, 1), carry,
        state.transpose(1, 2), chunk,
    )  # fmt: skip
    return outputs.transpose(0, 1), last.transpose(1, 2)


def naive(kind: str, arguments: tuple[torch.Tensor, ...]) -> Any:
    x, steps, rates, b, c, state = arguments
    if kind == "mamba1":
        return selective_state_space(x, steps, rates, b.unsqueeze(2), c.unsqueeze(2), state)
    heads, width = x.shape[2:]
    vectors = [each.repeat_interleave(heads // each.shape[2], 2).repeat_interleave(width, 2) for each in (b, c)]
    decays = rates.repeat_interleave(width)[:, None].expand(-1, b.shape[-1])
    outputs, last = selective_state_space(
        x.flatten(2), steps.repeat_interleave(width, 2), decays, *vectors, state.flatten(1, 2)
    )
    return outputs.view(x.shape), last.view(state.shape)


@pytest.mark.parametrize("kind", ["mamba1", "mamba2"])
@pytest.mark.parametrize(("time", "chunk"), [(1, 4), (13, 1), (13, 4), (12, 4), (13, 64)])
def test_the_fast_path_is_the_recurrence_forward_and_backward(kind: str, time: int, chunk: int) -> None:
    found = []
    for compute in (lambda given: fast(kind, given, chunk), lambda given: naive(kind, given)):
        arguments = tuple(each.clone().requires_grad_() for each in scan_inputs(kind, time))
        outputs, last = compute(arguments)
        (outputs * noise(*outputs.shape, seed=8)).sum().add((last * noise(*last.shape, seed=9)).sum()).backward()
        found.append((outputs, last, *(each.grad for each in arguments)))
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).detach().abs().max() < 1e-10 * max(1.0, float(expected.detach().abs().max()))


@pytest.mark.parametrize("kind", ["mamba1", "mamba2"])
@pytest.mark.parametrize("borders", [(5,), (4, 8), (1, 2, 7, 11)], ids=str)
def test_packed_sequences_are_scanned_apart(kind: str, borders: tuple[int, ...]) -> None:
    arguments = scan_inputs(kind, 13)
    arguments = (*arguments[:-1], torch.zeros_like(arguments[-1]))
    ids = torch.zeros(2, 13, dtype=torch.long)
    for border in borders:
        ids[:, border:] += 1
    outputs, last = fast(kind, arguments, 4, ids)
    for begin, end in zip((0, *borders), (*borders, 13), strict=True):
        x, steps, rates, b, c, state = arguments
        part = slice(begin, end)
        alone, alone_last = naive(kind, (x[:, part], steps[:, part], rates, b[:, part], c[:, part], state))
        assert (outputs[:, part] - alone).abs().max() < 1e-10
    assert (last - alone_last).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["mamba1", "mamba2", "mamba2_groups"])
def test_chunks_of_any_size_give_one_function(name: str) -> None:
    model, ids = built(VARIANTS[name]).double(), tokens()
    found = []
    for chunk in (1, 3, 17, None):
        for layer in model.model.layers:
            layer.mixer.chunk_size = chunk
        with torch.no_grad():
            found.append(model(ids, use_cache=False).logits)
    assert all((each - found[0]).abs().max() < 1e-10 for each in found)


def test_one_step_is_a_chunk_of_one() -> None:
    arguments = scan_inputs("mamba2", 1)
    for ours, expected in zip(scan_step(*arguments), naive("mamba2", arguments), strict=True):
        assert (ours - expected).abs().max() < 1e-12


def test_the_convolution_is_the_sum_over_its_taps() -> None:
    module = mixer1().double().conv1d
    fill(module)
    inputs = noise(2, 9, 2 * WIDTH)
    outputs, kept = module(inputs, None, None, None)
    assert (outputs - short_convolution(inputs, module.weight, module.bias)).abs().max() < 1e-12
    assert torch.equal(kept, inputs[:, -3:])


@pytest.mark.parametrize("kind", ["mamba1", "mamba2"])
def test_strong_decays_give_no_nan(kind: str) -> None:
    # Δ ≈ 8 and A = −16: a quotient of exponentials of cumulative sums would overflow.
    x, steps, rates, b, c, state = (each.float() for each in scan_inputs(kind, 40))
    arguments = tuple(
        each.requires_grad_() for each in (x, torch.full_like(steps, 8.0), torch.full_like(rates, -16.0), b, c, state)
    )
    outputs, last = fast(kind, arguments, 32)
    (outputs.sum() + last.sum()).backward()
    assert all(torch.isfinite(each).all() for each in (outputs, last, *(each.grad for each in arguments)))


@pytest.mark.parametrize("name", ["mamba1", "mamba2"])
def test_a_long_input_is_the_same_in_pieces(name: str) -> None:
    model = built(changed(VARIANTS[name], {"model.max_seq_len": 1024, "layer_schedule.0.repeat": 2}))
    ids = tokens(batch=1, time=700)
    with torch.no_grad():
        full = model(ids, use_cache=False).logits
        first = model(ids[:, :650], use_cache=True)
        second = model(ids[:, 650:], past_key_values=first.past_key_values, use_cache=True).logits
    assert torch.isfinite(full).all()
    assert (torch.cat([first.logits, second], 1) - full).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in VARIANTS if "_and_" not in name])
def test_the_cache_holds_what_explain_declares(name: str, dtype: str) -> None:
    spec = changed(VARIANTS[name], {"model.dtype": dtype})
    ir = es.normalize_to_ir(spec)
    model, ids = es.compile_to_hf_model(ir), tokens(batch=3, time=11)
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        held = sum(layer.state_bytes for layer in cache.layers)
        assert held == model_cost(ir).cache_bytes(11, batch=3)
        model(ids, past_key_values=cache, use_cache=True)
    assert sum(layer.state_bytes for layer in cache.layers) == held == model_cost(ir).cache_bytes(9999, batch=3)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_parameter_formula_is_the_built_models(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert sum(each.numel() for each in es.compile_to_hf_model(ir).parameters()) == es.count_parameters(ir)


@pytest.mark.parametrize("side", ["left", "right", "both", "inside"])
@pytest.mark.parametrize("name", ["mamba1", "mamba2"])
def test_padding_anywhere_changes_nothing_of_the_tokens_or_the_state(name: str, side: str) -> None:
    model, ids = built(VARIANTS[name]), tokens(batch=1, time=9)
    is_token = {
        "left": [0, 0, 0] + [1] * 9,
        "right": [1] * 9 + [0, 0, 0],
        "both": [0] + [1] * 9 + [0, 0],
        "inside": [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1],
    }[side]
    mask = torch.tensor([is_token])
    padded = torch.zeros_like(mask)
    padded[mask.bool()] = ids[0]
    following = tokens(batch=1, time=4, seed=3)
    with torch.no_grad():
        plain = model(ids, use_cache=True)
        other = model(padded, attention_mask=mask, use_cache=True)
        assert (other.logits[mask.bool()] - plain.logits[0]).abs().max() < 1e-5
        after = [
            model(following, attention_mask=ones, past_key_values=output.past_key_values, use_cache=True).logits
            for output, ones in ((plain, None), (other, torch.cat([mask, torch.ones_like(following)], 1)))
        ]
    assert (after[0] - after[1]).abs().max() < 1e-5


def test_steps_and_rates_begin_where_the_spec_says() -> None:
    for variant in ("mamba1", "mamba2"):
        spec = changed(tiny_spec(), {MIXER: mamba(variant=variant, dt_min=0.01, dt_max=0.02), FFN: {"type": "none"}})
        mixer = es.compile_to_hf_model(es.normalize_to_ir(spec)).model.layers[0].mixer
        bias = mixer.dt_proj.bias if variant == "mamba1" else mixer.dt_bias
        steps = torch.nn.functional.softplus(bias)
        assert steps.min() > 0.0099 and steps.max() < 0.0202 and steps.std() > 0
        assert mixer.D.eq(1).all() and mixer.A_log.exp().min() >= 0.999


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"variant": "mamba1", "head_dim": 12}, "head_dim"),
        ({"variant": "mamba1", "n_groups": 2}, "n_groups"),
        ({"variant": "mamba1", "norm": True}, "norm"),
        ({"head_dim": 12, "dt_rank": 4}, "dt_rank"),
        ({"head_dim": 12, "bcdt_norm": "learned"}, "bcdt_norm"),
        ({"variant": "mamba1", "norm_eps": 1e-3}, "norm_eps"),
        ({"head_dim": 12, "norm": False, "norm_eps": 1e-3}, "norm_eps"),
        ({"head_dim": 13}, "head_dim"),
        ({"head_dim": 12, "n_groups": 5}, "n_groups"),
        ({"head_dim": 12, "expand": 1.01}, "expand"),
        ({"head_dim": 12, "dt_min": 0.5}, "dt_min"),
    ],
)
def test_contradictions_are_refused_where_they_stand(words: dict[str, Any], path: str) -> None:
    spec = changed(tiny_spec(), {MIXER: {"type": "mamba", "mamba": words}})
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec)
    assert [problem.path for problem in caught.value.diagnostics] == [f"{MIXER}.mamba.{path}"]


def test_what_the_mixer_keeps_is_a_recurrent_state() -> None:
    spec = changed(tiny_spec(), {MIXER: mamba(), "layer_templates.decoder.state": {"ssm_state": True}})
    es.validate_v2(spec)
    with pytest.raises(CompatibilityError):
        es.validate_v2(changed(spec, {"layer_templates.decoder.state": {"kv_cache": True}}))


def test_an_export_holds_the_variant_that_it_uses_and_no_other(tmp_path: Any) -> None:
    for name, unused in (("mamba1", ("Mamba2", "CarriedStates")), ("mamba2", ("Mamba1", "SelectiveScan"))):
        es.compile_to_directory(es.normalize_to_ir(VARIANTS[name]), tmp_path / name)
        text = (tmp_path / name / "modeling_eulerstack.py").read_text()
        assert not [each for each in (*unused, "GatedMLP", "class Attention(") if f"class {each}(" in text]
        assert "ffn_norm" not in {key.split(".")[-2] for key in built(VARIANTS[name]).state_dict()}


@pytest.mark.parametrize("name", ["mamba1", "mamba2", "mamba_and_attention"])
def test_the_whole_forward_compiles_into_one_graph(name: str) -> None:
    model, ids = built(VARIANTS[name]), tokens(time=6)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits, atol=1e-5)


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, so no kernels to compare with")


@CUDA
@pytest.mark.parametrize("make", [mixer1, mixer2])
@pytest.mark.parametrize("packed", [False, True])
def test_kernels_compute_what_pytorch_computes(make: Any, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mamba_ssm", reason="mamba-ssm is not installed")
    pytest.importorskip("causal_conv1d", reason="causal-conv1d is not installed")
    module = make(d_state=16, head_dim=16, chunk_size=None).cuda() if make is mixer2 else make(d_state=16).cuda()
    fill(module)
    ids = (torch.arange(50, device="cuda") >= 23).long().expand(2, -1) if packed else None
    found = []
    for kernels in (True, False):
        if not kernels:
            for place in ("mamba_parts.convolution_kernel", "mamba1.selective_scan_kernel", "mamba2.chunk_scan_kernel"):
                monkeypatch.setattr(f"eulerstack_mixers.modules.{place}", lambda: None)
        module.zero_grad()
        inputs = noise(2, 50, WIDTH).float().cuda().requires_grad_()
        # Otherwise mamba2's float32 is PyTorch's.
        with products_in_tf32():
            outputs = module(inputs, sequence_ids=ids)
        outputs.square().sum().backward()
        found.append([outputs, inputs.grad, *(each.grad.clone() for each in module.parameters())])
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).abs().max() < 2e-3 * max(1.0, float(expected.abs().max()))


class TestDispatch:
    """Which implementation is called, without the packages: stand-ins that only note the call."""

    def test_pytorch_computes_on_a_cpu_whatever_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*arguments: Any, **words: Any) -> Any:
            raise AssertionError("a kernel was called on a CPU")

        for place in ("mamba_parts.convolution_kernel", "mamba1.selective_scan_kernel", "mamba2.chunk_scan_kernel"):
            monkeypatch.setattr(f"eulerstack_mixers.modules.{place}", lambda: never)
        for module in (mixer1(), mixer2()):
            fill(module)
            assert torch.isfinite(module(noise(1, 5, WIDTH).float())).all()

    def test_kernels_that_do_not_import_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        from eulerstack_mixers.modules import mamba1, mamba2, mamba_parts

        monkeypatch.setitem(sys.modules, "mamba_ssm", None)
        monkeypatch.setitem(sys.modules, "causal_conv1d", None)
        for find in (mamba_parts.convolution_kernel, mamba1.selective_scan_kernel, mamba2.chunk_scan_kernel):
            find.cache_clear()
            assert find() is None
            find.cache_clear()

    def test_mamba2s_kernel_takes_what_it_computes_exactly(self) -> None:
        def takes(dtype: torch.dtype = torch.bfloat16, time: int = 8, **words: Any) -> bool:
            # All that the choice asks of a tensor, which here says that it lies on a GPU.
            inputs: Any = SimpleNamespace(is_cuda=True, shape=(1, time, 6, 8), dtype=dtype)
            return mixer2(**{"chunk_size": None, **words}).takes_kernel(inputs)

        assert takes() and takes(torch.float16) and takes(chunk_size=16) and takes(chunk_size=512)
        assert not takes(time=1) and not takes(chunk_size=8) and not takes(chunk_size=48) and not takes(dt_floor=0.1)
        assert not takes(torch.float64) and not takes(torch.float32)
        with products_in_tf32():
            assert takes(torch.float32)
        assert not mixer2(chunk_size=None).takes_kernel(torch.zeros(1, 8, 6, 8, dtype=torch.bfloat16))

    def test_mamba2s_kernel_gets_no_chunks_much_longer_than_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chunks = []

        def kernel(inputs: torch.Tensor, *given: Any, **words: Any) -> Any:
            chunks.append(given[4])
            return inputs, torch.zeros(1, 6, 8, 6)

        monkeypatch.setattr("eulerstack_mixers.modules.mamba2.chunk_scan_kernel", lambda: kernel)
        monkeypatch.setattr(Mamba2, "takes_kernel", lambda mixer, inputs: True)
        for declared, time in ((65536, 9), (65536, 300), (16, 300), (None, 9)):
            module = mixer2(chunk_size=declared)
            fill(module)
            module(noise(1, time, WIDTH).float())
        assert chunks == [256, 512, 16, 256]
