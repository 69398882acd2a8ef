"""Retention: three forms of one function, its state, its price, and what it is held against."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import eulerstack as es  # noqa: E402
from eulerstack.compiler.cost import model_cost  # noqa: E402
from eulerstack.dsl.source import parse_text  # noqa: E402
from eulerstack.errors import CompatibilityError  # noqa: E402
from eulerstack.ir import print_ir  # noqa: E402
from eulerstack_mixers.modules import retnet  # noqa: E402
from eulerstack_mixers.modules.retnet import (  # noqa: E402
    Retention,
    retention_chunks,
    retention_decays,
    retention_step,
    xpos_rotation,
)
from eulerstack_mixers.reference.retnet import retention, turn  # noqa: E402
from tests.model.mixers.retnet import RETNET, VARIANTS, spec  # noqa: E402
from tests.model.specs import built, changed, tokens  # noqa: E402
from tests.model.test_export import lively_directory, offline  # noqa: E402

BATCH, HEADS, TIME, KEY_DIM, VALUE_DIM = 2, 3, 23, 4, 6
CHUNKS = [None, 1, 5, 7, 23, 64]


def some_heads(time: int = TIME, dtype: Any = torch.float64, grad: bool = False, heads: int = HEADS) -> list[Any]:
    """Random queries, keys and values, (batch, heads, time, width)."""
    generator = torch.Generator().manual_seed(time)
    return [
        torch.randn(BATCH, heads, time, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)
        for width in (KEY_DIM, KEY_DIM, VALUE_DIM)
    ]


def recurrent(query: Any, key: Any, value: Any, state: Any = None) -> tuple[Any, Any]:
    """The recurrent form, token after token."""
    log_decay = retention_decays(query.shape[1], query.dtype, query.device)
    outputs = []
    for token in range(query.shape[2]):
        here = slice(token, token + 1)
        output, state = retention_step(query[:, :, here], key[:, :, here], value[:, :, here], log_decay, state, None)
        outputs.append(output)
    return torch.cat(outputs, dim=2), state


def chunked(
    query: Any, key: Any, value: Any, chunk_size: int | None, state: Any = None, **more: Any
) -> tuple[Any, Any]:
    """The chunkwise form, or the parallel one without a chunk size."""
    log_decay = retention_decays(query.shape[1], query.dtype, query.device)
    return retention_chunks(query, key, value, log_decay, state, chunk_size, **more)


def mixer_of(variant: dict[str, Any]) -> Retention:
    return built(variant).double().model.layers[0].mixer


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("begun", [False, True], ids=["from_nothing", "from_a_state"])
def test_chunks_of_any_size_give_the_recurrence_forward_and_backward(chunk_size: int | None, begun: bool) -> None:
    heads = some_heads(grad=True)
    state = torch.randn(BATCH, HEADS, KEY_DIM, VALUE_DIM, dtype=torch.float64, requires_grad=True) if begun else None
    inputs = [*heads, state] if begun else heads
    weight = torch.randn(BATCH, HEADS, TIME, VALUE_DIM, dtype=torch.float64)
    results = []
    for output, final in (recurrent(*heads, state), chunked(*heads, chunk_size, state)):
        loss = (output * weight).sum() + final.square().sum()
        results.append((output, final, *torch.autograd.grad(loss, inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_an_output_without_a_state_is_the_same_output(chunk_size: int | None) -> None:
    heads = some_heads()
    output, final = chunked(*heads, chunk_size, wants_state=False)
    assert final is None
    torch.testing.assert_close(output, recurrent(*heads)[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_time_stands_still_at_tokens_that_are_not_kept(chunk_size: int | None) -> None:
    query, key, value = some_heads()
    kept = torch.rand(BATCH, TIME, generator=torch.Generator().manual_seed(5)) > 0.4
    output, final = chunked(query, key, value * kept[:, None, :, None], chunk_size, kept=kept)
    for row in range(BATCH):
        alone, state = recurrent(*(states[row : row + 1, :, kept[row]] for states in (query, key, value)))
        torch.testing.assert_close(output[row, :, kept[row]], alone[0], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(final[row], state[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_nothing_crosses_a_border(chunk_size: int | None) -> None:
    heads = some_heads(grad=True)
    borders = torch.zeros(1, TIME, dtype=torch.bool)
    borders[0, [1, 9, 10]] = True
    output, final = chunked(*heads, chunk_size, borders=borders)
    pieces = [recurrent(*(states[:, :, start:end] for states in heads)) for start, end in ((0, 1), (1, 9), (9, 10))]
    last, state = recurrent(*(states[:, :, 10:] for states in heads))
    torch.testing.assert_close(
        output, torch.cat([piece for piece, _ in pieces] + [last], dim=2), atol=1e-10, rtol=1e-10
    )
    torch.testing.assert_close(final, state, atol=1e-10, rtol=1e-10)
    reach = torch.autograd.grad(output[:, :, 12].sum(), heads[2])[0]
    assert reach[:, :, :10].abs().max() == 0 and reach[:, :, 10:13].abs().min() > 0


def test_the_chunk_size_and_the_form_leave_a_model_as_it_is() -> None:
    ids = tokens()
    logits = []
    for params in ({"chunkwise": False, "chunk_size": None}, {"chunk_size": 1}, {"chunk_size": 6}, {"chunk_size": 100}):
        with torch.no_grad():
            logits.append(built(spec(**params)).double()(ids, use_cache=False).logits)
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_layer_is_the_naive_recurrence_forward_and_backward(name: str) -> None:
    variant = VARIANTS[name]
    ir = es.normalize_to_ir(variant)
    mixer = mixer_of(variant)
    params = ir.layers[0].mixer.params
    hidden = torch.randn(2, 13, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    weights = dict(mixer.named_parameters())
    theta = ir.position.params.get("rope_theta", 10000.0)
    naive = torch.stack(
        [
            retention(
                row, weights, params, ir.model["n_heads"], ir.model["n_kv_heads"], ir.model["norm_eps"], theta=theta
            )
            for row in hidden
        ]
    )
    output = mixer(hidden, position_ids=torch.arange(13)[None])
    torch.testing.assert_close(output, naive, atol=1e-10, rtol=1e-10)
    inputs = [hidden, *weights.values()]
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((each * weight).sum(), inputs) for each in (output, naive))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def normalised_retention(query: Any, key: Any, value: Any) -> Any:
    """The parallel form as its authors compute it: the decay mask and the scores divided by sizes of their rows.

    Shapes: query, key (batch, heads, time, d_key), value (batch, heads, time, d_value) -> like value
    """
    heads, time = query.shape[1:3]
    decays = (1 - 2.0 ** (-5.0 - torch.arange(heads, dtype=query.dtype))).log()
    distance = torch.arange(time, dtype=query.dtype)[:, None] - torch.arange(time, dtype=query.dtype)
    mask = torch.exp(distance.clamp(min=0) * decays[:, None, None]) * (distance >= 0)
    mask = mask / mask.sum(dim=-1, keepdim=True).sqrt()
    scores = query @ key.transpose(-1, -2) * mask
    scores = scores / scores.abs().sum(dim=-1, keepdim=True).clamp(min=1)
    return scores @ value


def test_row_normalisations_of_the_published_code_cancel_in_the_norm() -> None:
    heads = some_heads()
    ours, theirs = recurrent(*heads)[0], normalised_retention(*heads)
    assert (ours - theirs).abs().max() > 0.1
    normed = [torch.nn.functional.layer_norm(each, (VALUE_DIM,), eps=1e-20) for each in (ours, theirs)]
    torch.testing.assert_close(*normed, atol=1e-9, rtol=1e-9)


def test_the_rotation_is_that_of_the_published_code() -> None:
    width, theta = 12, 10000.0
    frequencies = (1.0 / theta ** torch.linspace(0, 1, width // 2, dtype=torch.float64)).repeat_interleave(2)
    positions = torch.arange(9)[None]
    angles = positions[..., None] * frequencies
    states = torch.randn(1, 2, 9, width, dtype=torch.float64)
    partner = torch.stack((-states[..., 1::2], states[..., ::2]), dim=-1).flatten(-2)
    expected = states * angles.cos() + partner * angles.sin()
    actual = retnet.apply_rotary(states, *xpos_rotation(positions, width, theta, torch.float64), interleaved=True)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual[0, 0, 7], turn(states[0, 0, 7], 7, theta))


def test_the_norm_is_a_group_norm_with_a_group_a_head() -> None:
    mixer = mixer_of(spec(gate=False))
    taken: list[Any] = []
    mixer.o_proj.register_forward_hook(lambda module, args, output: taken.append(args[0]))
    kept: list[Any] = []
    retain = mixer.retain
    mixer.retain = lambda *args: kept.append(retain(*args)) or kept[-1]
    mixer(torch.randn(2, 5, 36, dtype=torch.float64), position_ids=torch.arange(5)[None])
    flat = kept[0][0].transpose(1, 2).flatten(0, 1).flatten(1)
    normed = torch.nn.functional.group_norm(flat, mixer.num_heads, eps=mixer.eps)
    torch.testing.assert_close(taken[0].flatten(0, 1), normed)


@pytest.mark.parametrize("heads", [1, 8, 16, 64])
def test_decays_of_every_head_are_exact_in_float32(heads: int) -> None:
    log_decay = retention_decays(heads, torch.float32, "cpu").double()
    exact = torch.tensor([math.log1p(-(2.0 ** (-5 - head))) for head in range(heads)], dtype=torch.float64)
    torch.testing.assert_close(log_decay, exact, rtol=2e-7, atol=0)
    assert bool((log_decay < 0).all())


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"retnet_hybrid"}))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_state_has_the_declared_bytes_however_long_the_input(name: str, dtype: str) -> None:
    ir = es.normalize_to_ir(changed(VARIANTS[name], {"model.dtype": dtype}))
    model = es.compile_to_hf_model(ir)
    for time in (1, 17, 40):
        with torch.no_grad():
            cache = model(tokens(batch=3, time=time), use_cache=True).past_key_values
        for layer, price in zip(cache.layers, model_cost(ir).layers, strict=True):
            assert layer.state_bytes == 3 * price.mixer.state_bytes_fixed
            assert price.mixer.state_bytes_per_token == 0
            assert layer.get("state").dtype == torch.float32
    mixer = model.model.layers[0].mixer
    assert cache.layers[0].get("state").shape == (3, mixer.num_heads, mixer.key_dim, mixer.value_dim)


@pytest.mark.parametrize("name", VARIANTS)
def test_declared_parameters_are_the_built_ones(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    model = es.compile_to_hf_model(ir)
    for layer, price in zip(model.model.layers, model_cost(ir).layers, strict=True):
        assert sum(parameter.numel() for parameter in layer.mixer.parameters()) == price.mixer.params


def test_with_the_papers_widths_a_layer_has_eight_times_the_square_of_its_width() -> None:
    paper = changed(spec(), {"model.d_model": 64, "model.n_heads": 4, "model.n_kv_heads": 4})
    assert model_cost(es.normalize_to_ir(paper)).layers[0].mixer.params == 8 * 64**2


@pytest.mark.parametrize("cast", [torch.float32, torch.bfloat16])
def test_a_long_input_stays_finite_and_decodes_as_it_was_read(cast: Any) -> None:
    model = built(changed(spec(chunk_size=64), {"model.max_seq_len": 4096})).to(cast)
    ids = tokens(batch=1, time=2000)
    with torch.no_grad():
        full = model(ids, use_cache=False).logits
        cache = model(ids[:, :1990], use_cache=True).past_key_values
        rest = [model(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(1990, 2000)]
    assert bool(torch.isfinite(full).all())
    limit = 1e-4 if cast == torch.float32 else 0.1
    assert (torch.cat(rest, 1) - full[:, 1990:]).abs().max() < limit


def test_autocast_leaves_the_recurrence_in_float32() -> None:
    model = built(spec())
    ids = tokens(time=40)
    with torch.no_grad():
        exact = model(ids, use_cache=True)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(ids, use_cache=True)
    assert (mixed.logits.float() - exact.logits).norm() / exact.logits.norm() < 0.05
    assert all(layer.get("state").dtype == torch.float32 for layer in mixed.past_key_values.layers)


def test_far_positions_turn_by_their_distance_alone() -> None:
    mixer = mixer_of(spec())
    hidden = torch.randn(1, 11, 36, dtype=torch.float64)
    near = mixer(hidden, position_ids=torch.arange(11)[None])
    far = mixer(hidden, position_ids=torch.arange(11)[None] + 5000)
    torch.testing.assert_close(near, far, atol=1e-9, rtol=1e-9)


def test_without_position_ids_positions_go_on_where_the_cache_stands() -> None:
    from transformers.cache_utils import DynamicCache

    model = built(spec()).double()
    mixer = model.model.layers[0].mixer
    hidden = torch.randn(1, 9, 36, dtype=torch.float64)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        pieces = [mixer(piece, past_key_values=cache) for piece in hidden.split([4, 1, 4], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), mixer(hidden), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["retnet", "retnet_parallel", "retnet_hybrid"])
def test_the_whole_forward_compiles_into_one_graph(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["retnet", "retnet_hybrid"])
def test_compiled_decoding_over_a_static_cache_gives_the_same_tokens(name: str) -> None:
    model = built(VARIANTS[name])
    ids = tokens(batch=1, time=6)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cache = None
    plain = model.generate(ids, **options)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    current, generated = ids, [ids]
    with torch.no_grad():
        for _ in range(6):
            output = compiled(current, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            current = output.logits[:, -1:].argmax(-1)
            generated.append(current)
    torch._dynamo.reset()
    assert torch.equal(torch.cat(generated, 1), plain)


def counted_flops(time: int, **params: Any) -> int:
    """The multiply-adds of one retention layer over a prompt, twice, counted by walking over its tokens."""
    heads, key_dim, value_dim, d_model = 3, 12, 24, 36
    weights = d_model * (key_dim * (heads + 1) + value_dim * (1 + 2 * heads))
    chunk = params["chunk_size"] if params.get("chunkwise", True) else time
    total = 0
    for token in range(time):
        total += 2 * weights
        total += 2 * heads * (key_dim + value_dim) * (token % chunk + 1)
        total += 2 * heads * key_dim * value_dim * (1 + (token >= chunk))
    return total


@pytest.mark.parametrize("time", [1, 5, 23, 64])
@pytest.mark.parametrize(
    "params", [{"chunk_size": 5}, {"chunk_size": 64}, {"chunk_size": None, "chunkwise": False}], ids=str
)
def test_a_prompt_costs_what_its_tokens_do(time: int, params: dict[str, Any]) -> None:
    price = model_cost(es.normalize_to_ir(spec(**params))).layers[0].mixer
    assert price.prefill_flops(time) == counted_flops(time, **params)


def test_chunkwise_costs_grow_linearly_and_parallel_ones_do_not() -> None:
    linear, quadratic = (
        model_cost(es.normalize_to_ir(spec(chunkwise=chunkwise, chunk_size=size))).layers[0].mixer.prefill_flops
        for chunkwise, size in ((True, 5), (False, None))
    )
    assert linear(40_000) / linear(20_000) == pytest.approx(2, rel=1e-3)
    assert quadratic(40_000) / quadratic(20_000) == pytest.approx(4, rel=0.05)


def test_the_chunkwise_form_is_the_one_that_is_computed() -> None:
    def measured(time: int, **words: Any) -> int:
        model = built(spec(**words))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.model.layers[0].mixer(torch.zeros(1, time, model.config.hidden_size))
        return counter.get_total_flops()

    linear = [measured(time, chunkwise=True, chunk_size=8) for time in (64, 128)]
    quadratic = [measured(time, chunkwise=False, chunk_size=None) for time in (64, 128)]
    assert linear[1] / linear[0] == pytest.approx(2, rel=0.05) and quadratic[1] / quadratic[0] > 2.5


def test_a_decoded_token_costs_the_same_at_any_length() -> None:
    cost = model_cost(es.normalize_to_ir(spec()))
    assert cost.flops_per_token(1) == cost.flops_per_token(1_000_000)


@pytest.mark.parametrize(
    "state",
    [
        {"ssm_state": True},
        {"kv_cache": True},
        {"ssm_state": True, "kv_cache": True},
        {"ssm_state": True, "kv_cache": False},
        {"ssm_state": False, "kv_cache": True},
        {"kv_cache": False},
    ],
    ids=str,
)
def test_either_word_names_the_recurrent_state(state: dict[str, bool]) -> None:
    es.validate_v2(changed(spec(), {"layer_templates.decoder.state": state}))


def test_denying_the_state_under_both_its_names_is_a_contradiction() -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(changed(spec(), {"layer_templates.decoder.state": {"ssm_state": False, "kv_cache": False}}))
    assert len(caught.value.diagnostics) == 2


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({f"{RETNET}.value_factor": 1.3}, "value_factor"),
        ({f"{RETNET}.value_factor": 0.01}, "value_factor"),
        ({"model.head_dim": 11, "embedding.positional": "none"}, "rope"),
    ],
)
def test_widths_that_cannot_be_built_are_refused(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(changed(spec(), changes))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.path.endswith(f"retnet.{path}")
    assert diagnostic.see == "reference/errors.md#retnet-widths"


def test_what_the_fix_for_values_says_is_accepted() -> None:
    es.validate_v2(changed(spec(), {f"{RETNET}.value_factor": 16 / 12}))
    es.validate_v2(changed(spec(rope=False), {"model.head_dim": 11, "embedding.positional": "none"}))


@pytest.mark.parametrize("name", ["retnet", "retnet_parallel", "retnet_hybrid"])
def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = lively_directory(VARIANTS[name], tmp_path / "model")
    ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    found = offline(tmp_path / "model", tmp_path, again=True)
    with torch.no_grad():
        assert torch.equal(found["logits"], model(ids).logits)
    assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_printed_ir_reads_back_as_itself(name: str) -> None:
    ir = es.normalize_to_ir(VARIANTS[name])
    assert es.normalize_to_ir(parse_text(print_ir(ir), "printed.yml")) == ir


class OnCuda:
    """Says of a tensor that it lies on a GPU, which is all that the choice of a kernel asks."""

    is_cuda = True

    def __init__(self, time: int):
        self.shape = (1, 3, time, 12)


@pytest.fixture
def mixer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(retnet, "fla_retention", lambda: object())
    return es.compile_to_hf_model(es.normalize_to_ir(spec())).model.layers[0].mixer


def test_the_kernel_takes_what_it_computes_exactly(mixer: Any) -> None:
    ones, holes = torch.ones(1, 8, dtype=torch.long), torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]])
    for dtype in (torch.bfloat16, torch.float16):
        assert mixer.takes_kernel(OnCuda(8), None, None, dtype)
        assert mixer.takes_kernel(OnCuda(8), ones, None, dtype)
    assert not mixer.takes_kernel(torch.zeros(1, 3, 8, 12), None, None, torch.bfloat16)
    assert not mixer.takes_kernel(OnCuda(1), None, None, torch.bfloat16)
    assert not mixer.takes_kernel(OnCuda(8), holes, None, torch.bfloat16)
    assert not mixer.takes_kernel(OnCuda(8), None, torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]), torch.bfloat16)
    assert not mixer.takes_kernel(OnCuda(8), None, None, torch.float32)
    mixer.value_dim = 13
    assert not mixer.takes_kernel(OnCuda(8), None, None, torch.bfloat16)
    mixer.value_dim, mixer.key_dim = 24, 11
    assert not mixer.takes_kernel(OnCuda(8), None, None, torch.bfloat16)
    mixer.key_dim, mixer.num_heads = 12, 21
    assert not mixer.takes_kernel(OnCuda(8), None, None, torch.bfloat16)


def test_without_fla_pytorch_computes(mixer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retnet, "fla_retention", lambda: None)
    assert not mixer.takes_kernel(OnCuda(8), None, None, torch.bfloat16)


def test_the_kernel_is_called_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(query: Any, key: Any, value: Any, scale: float, initial_state: Any, output_final_state: bool) -> Any:
        assert query.shape == (2, 9, 3, 12) and value.shape == (2, 9, 3, 24) and query.is_contiguous()
        states = (states.transpose(1, 2) for states in (query * scale, key, value))
        output, final = chunked(*states, None, initial_state)
        return output.transpose(1, 2), final if output_final_state else None

    model = built(spec()).double()
    hidden = torch.randn(2, 9, 36, dtype=torch.float64)
    mixer = model.model.layers[0].mixer
    expected = mixer(hidden)
    monkeypatch.setattr(retnet, "fla_retention", lambda: stand_in)
    monkeypatch.setattr(Retention, "takes_kernel", lambda *args: True)
    torch.testing.assert_close(mixer(hidden), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_flas_kernel_gives_the_numbers_of_pytorch() -> None:
    if retnet.fla_retention() is None:
        pytest.skip("flash-linear-attention is not installed here")
    wide = changed(spec(), {"model.d_model": 128, "model.n_heads": 2, "model.n_kv_heads": 2})
    mixer = built(wide).model.layers[0].mixer.to("cuda", torch.bfloat16)
    hidden = torch.randn(2, 200, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    fast = mixer(hidden)
    (fast_gradient,) = torch.autograd.grad(fast.float().square().sum(), hidden)
    mixer.takes_kernel = lambda *args: False
    slow = mixer(hidden)
    (slow_gradient,) = torch.autograd.grad(slow.float().square().sum(), hidden)
    assert (fast - slow).norm() / slow.norm() < 0.02
    assert (fast_gradient - slow_gradient).norm() / slow_gradient.norm() < 0.05
