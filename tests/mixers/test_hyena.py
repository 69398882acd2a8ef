"""Hyena against explicit sums, and what its growing state, its kept filters and its transforms must never change."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import StaticCache
from transformers.cache_utils import Cache

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError
from eulerstack.hf.cache import StateLayer
from eulerstack.plugins.manager import get_registry
from eulerstack_mixers.modules.hyena import (
    Hyena,
    hyena_direct_convolution,
    hyena_fft_convolution,
    hyena_fft_length,
    hyena_packed_convolution,
)
from eulerstack_mixers.reference.hyena import hyena
from tests.model.mixers.hyena import HYENA, VARIANTS, hyena_spec
from tests.model.specs import built, changed, enliven, tokens
from tests.model.test_export import lively_directory, offline

PARAMS = {"depth": 2, "filter_hidden": 8, "filter_decay": 1.0, "short_conv": 3, "filter_emb": 5}
SPECS = [
    {},
    {"depth": 3},
    {"depth": 5, "short_conv": 1},
    {"short_conv": 6, "filter_emb": 3},
    {"filter_decay": 0.0},
    {"filter_decay": 9.0, "filter_hidden": 1},
]


def mixer(d_model: int = 6, max_seq_len: int = 24, **words: Any) -> Hyena:
    """A mixer of its own with lively weights in float64."""
    config = SimpleNamespace(hidden_size=d_model, max_position_embeddings=max_seq_len)
    module = Hyena(config, {**PARAMS, **words}, layer_idx=0).double()
    enliven(module)
    return module


def states(batch: int = 1, time: int = 19, d_model: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, d_model, generator=generator, dtype=torch.float64)


def cache_for(max_cache_len: int | None = None) -> Any:
    """A cache of one state layer; with `max_cache_len`, as a static cache has it."""
    return Cache(layers=[StateLayer(max_cache_len=max_cache_len)])


def in_chunks(module: Hyena, inputs: torch.Tensor, chunks: list[int], cache: Any, mask: Any = None) -> torch.Tensor:
    """The mixer's output over `chunks` of the input, through a cache."""
    parts, start = [], 0
    with torch.no_grad():
        for length in chunks:
            piece = slice(start, start + length)
            part = None if mask is None else mask[:, piece]
            parts.append(module(inputs[:, piece], attention_mask=part, past_key_values=cache))
            start += length
    return torch.cat(parts, dim=1)


class TestFunction:
    """What is computed, in float64."""

    @pytest.mark.parametrize("max_seq_len", [24, 19, 7, 1])
    @pytest.mark.parametrize("words", SPECS, ids=str)
    def test_output_and_gradients_are_those_of_the_explicit_sums(self, words: dict[str, Any], max_seq_len: int) -> None:
        module, inputs = mixer(max_seq_len=max_seq_len, **words), states().requires_grad_()
        weights = {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}
        theirs = inputs.detach().clone().requires_grad_()
        expected = hyena(theirs[0], weights, {**PARAMS, **words}, max_seq_len)
        actual = module(inputs)[0]
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-10)
        direction = states(seed=1)[0]
        (actual * direction).sum().backward()
        (expected * direction).sum().backward()
        torch.testing.assert_close(inputs.grad, theirs.grad, atol=1e-10, rtol=1e-9)
        for name, parameter in module.named_parameters():
            # With one tap at lag 0 the features are constants, but every parameter still has its part.
            torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-9, rtol=1e-8, msg=name)

    def test_a_filter_does_not_know_the_length_of_the_input(self) -> None:
        module = mixer(max_seq_len=64, depth=3)
        long = module.filter(64)
        for tokens_ in (1, 2, 17, 63):
            torch.testing.assert_close(module.filter(tokens_), long[:tokens_], atol=1e-14, rtol=0)
        inputs = states(time=40)
        with torch.no_grad():
            torch.testing.assert_close(module(inputs[:, :13]), module(inputs)[:, :13], atol=1e-12, rtol=0)

    def test_filters_end_at_max_seq_len_and_a_token_forgets_what_lies_further_back(self) -> None:
        module, inputs = mixer(max_seq_len=8), states(time=30)
        assert module.filter(100).shape[0] == 8
        altered = inputs.clone()
        altered[:, 3] += 1
        with torch.no_grad():
            difference = (module(altered) - module(inputs)).abs().amax(dim=(0, 2))
        # The short convolution carries token 3 two tokens further, and the filter seven more.
        assert (difference[3:13] > 1e-6).all()
        assert difference[:3].max() < 1e-12 and difference[13:].max() < 1e-12

    def test_decay_at_one_falls_to_a_hundredth_within_the_declared_parts_of_the_context(self) -> None:
        module = mixer(max_seq_len=1000, d_model=9)
        rates = module.filter.rates("cpu", torch.float64)
        assert math.exp(-0.3 * float(rates[-1])) == pytest.approx(0.01)
        assert math.exp(-1.5 * float(rates[0])) == pytest.approx(0.01)

    @pytest.mark.parametrize("tokens_", [1, 3, 4, 5, 48, 49, 64, 65, 97, 1000])
    def test_a_transform_is_at_least_as_long_as_asked_and_at_most_half_as_long_again(self, tokens_: int) -> None:
        length = hyena_fft_length(tokens_)
        assert tokens_ <= length <= max(4, 1.5 * tokens_)

    @given(time=st.integers(1, 40), outputs=st.integers(1, 40), taps=st.integers(1, 40))
    @settings(max_examples=60, deadline=None)
    def test_transform_and_explicit_sum_agree_for_any_last_tokens(self, time: int, outputs: int, taps: int) -> None:
        outputs, taps = min(outputs, time), min(taps, time)
        inputs, kernel = states(batch=2, time=time), states(time=taps, seed=1)[0]
        expected = torch.stack(
            [sum(kernel[t - s] * inputs[:, s] for s in range(t + 1) if t - s < taps) for t in range(time)], dim=1
        )[:, time - outputs :]
        torch.testing.assert_close(hyena_fft_convolution(inputs, kernel, outputs), expected, atol=1e-12, rtol=0)
        reverse = kernel.flip(0)
        torch.testing.assert_close(hyena_direct_convolution(inputs, reverse, outputs), expected, atol=1e-12, rtol=0)


class TestPacking:
    """Sequences in one row."""

    @given(lengths=st.lists(st.integers(1, 45), min_size=1, max_size=8), taps=st.integers(1, 100))
    @settings(max_examples=60, deadline=None)
    def test_packed_convolution_is_that_of_each_sequence_alone(self, lengths: list[int], taps: int) -> None:
        total = sum(lengths)
        inputs, kernel = states(time=total), states(time=min(taps, total), seed=1)[0]
        ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
        packed = hyena_packed_convolution(inputs, kernel, ids)
        parts = inputs.split(lengths, dim=1)
        alone = [hyena_fft_convolution(part, kernel[: part.shape[1]], part.shape[1]) for part in parts]
        torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=1e-12, rtol=0)

    def test_rows_with_different_borders_give_the_numbers_of_their_sequences(self) -> None:
        module, inputs = mixer(max_seq_len=64, depth=3, short_conv=4), states(batch=2, time=50)
        lengths = ([1, 2, 30, 17], [16, 16, 17, 1])
        ids = torch.stack([torch.repeat_interleave(torch.arange(4), torch.tensor(row)) for row in lengths])
        with torch.no_grad():
            packed = module(inputs, sequence_ids=ids)
            for row, parts in enumerate(lengths):
                alone = [module(part) for part in inputs[row : row + 1].split(parts, 1)]
                torch.testing.assert_close(packed[row : row + 1], torch.cat(alone, 1), atol=1e-12, rtol=0)

    def test_packed_rows_are_differentiated_like_their_sequences(self) -> None:
        module, inputs = mixer(max_seq_len=64), states(time=41).requires_grad_()
        ids = torch.repeat_interleave(torch.arange(2), torch.tensor([22, 19]))[None]
        module(inputs, sequence_ids=ids)[:, 22:].square().sum().backward()
        packed, packed_bias = inputs.grad, module.filter.input_bias.grad.clone()
        inputs.grad = None
        module.zero_grad()
        module(inputs[:, 22:]).square().sum().backward()
        torch.testing.assert_close(packed, inputs.grad, atol=1e-10, rtol=1e-9)
        torch.testing.assert_close(packed_bias, module.filter.input_bias.grad, atol=1e-10, rtol=1e-9)


class TestCache:
    """The state: exact, as large as declared, safe to reorder, of fixed size where that is asked."""

    @pytest.mark.parametrize("max_seq_len", [64, 12, 2, 1])
    @pytest.mark.parametrize("chunks", [[1] * 30, [30], [7, 1, 13, 2, 4, 3], [29, 1], [4, 5, 21]], ids=str)
    @pytest.mark.parametrize("words", [{}, {"depth": 4, "short_conv": 1}, {"short_conv": 5}], ids=str)
    def test_chunks_give_the_numbers_of_the_whole(
        self, words: dict[str, Any], chunks: list[int], max_seq_len: int
    ) -> None:
        module, inputs = mixer(max_seq_len=max_seq_len, **words), states(batch=2, time=30)
        with torch.no_grad():
            whole = module(inputs)
        for room in (None, 30, 45):
            found = in_chunks(module, inputs, chunks, cache_for(room))
            torch.testing.assert_close(found, whole, atol=1e-11, rtol=0)

    @pytest.mark.parametrize("room", [None, 20], ids=["dynamic", "static"])
    @pytest.mark.parametrize("chunks", [[16], [1] * 16, [5, 4, 7], [2, 14], [15, 1]], ids=str)
    def test_padding_anywhere_is_as_if_it_were_not_there(self, chunks: list[int], room: int | None) -> None:
        module, inputs = mixer(max_seq_len=10, depth=3, short_conv=4), states(batch=3, time=16)
        mask = torch.ones(3, 16, dtype=torch.long)
        mask[0, :5] = 0
        mask[1, 11:] = 0
        mask[2, [0, 3, 4, 8, 9, 10, 15]] = 0
        inputs[mask == 0] = 1e3
        found = in_chunks(module, inputs, chunks, cache_for(room), mask)
        for row in range(3):
            own = mask[row] == 1
            with torch.no_grad():
                alone = module(inputs[row : row + 1, own])
            torch.testing.assert_close(found[row : row + 1, own], alone, atol=1e-11, rtol=0)

    @pytest.mark.parametrize("context", [1, 2, 9, 11, 12, 30])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("words", [{}, {"depth": 4}, {"short_conv": 1}], ids=str)
    def test_declared_bytes_are_the_stored_ones(self, words: dict[str, Any], dtype: str, context: int) -> None:
        spec = changed(hyena_spec(**words), {"model.max_seq_len": 12, "model.dtype": dtype})
        ir = es.normalize_to_ir(spec)
        model = es.compile_to_hf_model(ir)
        with torch.no_grad():
            cache = model(tokens(batch=3, time=context), use_cache=True).past_key_values
            assert sum(layer.state_bytes for layer in cache.layers) == model_cost(ir).cache_bytes(context, batch=3)
            model(tokens(batch=3, time=1), past_key_values=cache, use_cache=True)
        assert sum(layer.state_bytes for layer in cache.layers) == model_cost(ir).cache_bytes(context + 1, batch=3)

    def test_rows_of_the_state_can_be_reordered_repeated_and_selected(self) -> None:
        module, inputs = mixer(depth=3), states(batch=3, time=12)
        with torch.no_grad():
            whole = module(inputs)
        for change, rows in (
            (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
            (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
            (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
        ):
            cache = cache_for()
            in_chunks(module, inputs[:, :7], [7], cache)
            change(cache)
            found = in_chunks(module, inputs[rows, 7:], [1, 4], cache)
            torch.testing.assert_close(found, whole[rows, 7:], atol=1e-11, rtol=0)

    def test_a_static_cache_keeps_its_addresses_and_can_be_used_again(self) -> None:
        module, inputs = mixer(), states(time=12)
        with torch.no_grad():
            whole = module(inputs)
        cache = cache_for(16)
        in_chunks(module, inputs[:, :5], [5], cache)
        before = {name: state.data_ptr() for name, state in cache.layers[0].slots.items()}
        in_chunks(module, inputs[:, 5:], [1] * 7, cache)
        assert before == {name: state.data_ptr() for name, state in cache.layers[0].slots.items()}
        cache.reset()
        torch.testing.assert_close(in_chunks(module, inputs, [4, 8], cache), whole, atol=1e-11, rtol=0)

    def test_a_static_cache_without_room_is_an_error_and_not_a_forgotten_token(self) -> None:
        module, inputs = mixer(), states(time=12)
        for chunks in ([12], [10, 1, 1], [4, 8]):
            with pytest.raises(RuntimeError, match="no room"):
                in_chunks(module, inputs, chunks, cache_for(10))

    def test_a_state_that_cannot_be_rolled_back_says_so(self) -> None:
        cache = cache_for()
        in_chunks(mixer(), states(time=12), [12], cache)
        with pytest.raises(RuntimeError, match="rolled back"):
            cache.crop(-2)

    def test_gradients_flow_through_the_cache(self) -> None:
        module, inputs = mixer(), states(time=12).requires_grad_()
        module(inputs)[:, 8:].square().sum().backward()
        whole, inputs.grad = inputs.grad, None
        cache = cache_for()
        parts = [module(part, past_key_values=cache) for part in inputs.split([8, 1, 3], dim=1)]
        torch.cat(parts[1:], 1).square().sum().backward()
        torch.testing.assert_close(inputs.grad, whole, atol=1e-10, rtol=1e-9)


class TestKeptFilters:
    """Taps kept between decoded tokens are never those of other weights."""

    @pytest.mark.parametrize("change", ["add_", "load", "data", "double"])
    def test_new_weights_give_new_filters(self, change: str) -> None:
        module, inputs = mixer(max_seq_len=64), states(time=20)
        in_chunks(module, inputs, [18, 1, 1], cache_for())
        assert module.filter.kept_taps is not None
        with torch.no_grad():
            if change == "add_":
                module.filter.input_bias.add_(0.5)
            elif change == "load":
                module.load_state_dict({name: value + 0.1 for name, value in module.state_dict().items()})
            elif change == "data":
                # Not counted as a change of the parameter, and seen when the next sequence begins.
                module.filter.input_bias.data.add_(0.5)
            else:
                module.float().double()
            expected = module(inputs)
        found = in_chunks(module, inputs, [18, 1, 1], cache_for())
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)

    def test_weights_changed_in_the_middle_of_a_sequence_count_at_once(self) -> None:
        module, inputs, cache = mixer(max_seq_len=64), states(time=20), cache_for()
        in_chunks(module, inputs[:, :15], [14, 1], cache)
        before = in_chunks(module, inputs[:, 15:16], [1], copy.deepcopy(cache))
        with torch.no_grad():
            module.filter.output_weight.mul_(2.0)
        assert (in_chunks(module, inputs[:, 15:16], [1], cache) - before).abs().max() > 1e-3

    def test_kept_taps_are_no_weights(self) -> None:
        module, inputs = mixer(max_seq_len=64), states(time=20)
        names = set(module.state_dict())
        in_chunks(module, inputs, [18, 1, 1], cache_for())
        assert set(module.state_dict()) == names and not list(module.buffers())
        twin = copy.deepcopy(module)
        found = in_chunks(twin, inputs, [18, 1, 1], cache_for())
        torch.testing.assert_close(found, in_chunks(module, inputs, [20], cache_for()), atol=1e-11, rtol=0)

    def test_decoding_works_in_inference_mode(self) -> None:
        with torch.inference_mode():
            module, inputs = mixer(max_seq_len=64), states(time=20)
            found = in_chunks(module, inputs, [15, 1, 1, 3], cache_for())
            torch.testing.assert_close(found, module(inputs), atol=1e-11, rtol=0)


class TestPrecision:
    """Half precision and long inputs."""

    def test_a_long_input_decodes_as_it_is_read(self) -> None:
        module, inputs = mixer(max_seq_len=4096).float(), states(time=3000).float()
        with torch.no_grad():
            whole = module(inputs)
        found = in_chunks(module, inputs, [2900, 1, 1, 98], cache_for())
        assert (found - whole).abs().max() < 1e-5 * whole.abs().max().clamp(min=1)

    def test_filters_of_a_bfloat16_model_are_computed_in_float32(self) -> None:
        module = mixer(max_seq_len=512).to(torch.bfloat16)
        taps = module.filter(512)
        assert taps.dtype == torch.float32
        torch.testing.assert_close(taps.double(), copy.deepcopy(module).double().filter(512), atol=1e-4, rtol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(module.filter(512), taps)

    def test_autocast_gives_nearly_the_numbers_of_float32(self) -> None:
        module, inputs = mixer(max_seq_len=64).float(), states(time=40).float()
        with torch.no_grad():
            expected = module(inputs)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = module(inputs).float()
        assert (found - expected).norm() / expected.norm() < 0.03

    @pytest.mark.parametrize("decay", [1.0, 0.0])
    @pytest.mark.parametrize("max_seq_len", [64, 2048, 131072])
    def test_initial_filters_have_an_energy_near_one_whatever_the_context(self, max_seq_len: int, decay: float) -> None:
        config = SimpleNamespace(hidden_size=16, max_position_embeddings=max_seq_len)
        words = {**PARAMS, "filter_hidden": 64, "filter_emb": 33, "filter_decay": decay}
        torch.manual_seed(0)
        module = Hyena(config, words, layer_idx=0)
        module.filter.initialize(0.02)
        with torch.no_grad():
            energy = module.filter(max_seq_len).square().sum(0)
        assert torch.isfinite(energy).all() and 0.4 < float(energy.mean()) < 2.5


class TestModel:
    """The mixer in whole models."""

    @pytest.mark.parametrize("name", VARIANTS)
    def test_declared_parameters_are_the_built_ones(self, name: str) -> None:
        ir = es.normalize_to_ir(VARIANTS[name])
        model = es.compile_to_hf_model(ir)
        for layer, cost in zip(model.model.layers, model_cost(ir).layers, strict=True):
            assert sum(parameter.numel() for parameter in layer.mixer.parameters()) == cost.mixer.params

    def test_a_decoded_token_pays_for_every_earlier_one_and_a_whole_sequence_for_its_transforms(self) -> None:
        ir = es.normalize_to_ir(changed(hyena_spec(depth=3), {"model.max_seq_len": 4096}))
        mixer_cost, d_model, time = model_cost(ir).layers[0].mixer, 36, 1024
        assert mixer_cost.flops_per_token == 2 * 5 * d_model**2 + 2 * 3 * 4 * d_model + 2 * 2 * d_model
        assert mixer_cost.flops_per_token_per_context == 2 * 2 * d_model
        cost = model_cost(ir)
        step = cost.flops_per_token(time) - cost.flops_per_token(time - 1)
        assert step == 2 * mixer_cost.flops_per_token_per_context
        transforms = cost.prefill_flops(time) - time * cost.flops_per_token(0)
        assert transforms == 2 * 5 * 2 * d_model * time * 10

    @pytest.mark.parametrize("name", ["hyena", "hyena_hybrid"])
    def test_a_directory_loads_without_eulerstack_and_gives_the_same_numbers(self, name: str, tmp_path: Any) -> None:
        model = lively_directory(VARIANTS[name], tmp_path / "model")
        ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
        found = offline(tmp_path / "model", tmp_path, again=True)
        with torch.no_grad():
            assert torch.equal(found["logits"], model(ids).logits)
        assert torch.equal(found["generated"], model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))

    @pytest.mark.parametrize("name", ["hyena", "hyena_hybrid"])
    def test_gradient_checkpointing_gives_the_same_gradients(self, name: str) -> None:
        ids, gradients = tokens(), []
        for checkpointing in (False, True):
            model = built(VARIANTS[name]).train()
            if checkpointing:
                model.gradient_checkpointing_enable()
            model(ids, labels=ids, use_cache=False).loss.backward()
            gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
        assert all(torch.allclose(gradients[0][key], gradients[1][key], atol=1e-6) for key in gradients[0])

    @pytest.mark.parametrize("name", ["hyena", "hyena_depth_4", "hyena_hybrid"])
    def test_forward_and_packed_forward_compile_into_one_graph(self, name: str) -> None:
        model, ids = built(VARIANTS[name]), tokens()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        packed = torch.cat([torch.arange(9), torch.arange(8)])[None].expand(2, -1)
        with torch.no_grad():
            for positions in (None, packed):
                expected = model(ids, position_ids=positions, use_cache=False).logits
                found = compiled(ids, position_ids=positions, use_cache=False).logits
                assert torch.allclose(found, expected, atol=1e-5)

    def test_decoding_with_a_static_cache_compiles_into_one_graph_that_serves_every_step(self) -> None:
        model, ids = built(VARIANTS["hyena"]), tokens(time=12)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        cache = StaticCache(config=model.config, max_cache_len=16)
        torch._dynamo.utils.counters.clear()
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits
            parts = [model(ids[:, :6], past_key_values=cache, use_cache=True).logits]
            for step in range(6, 12):
                position = torch.full((1, 1), step)
                options = {"past_key_values": cache, "position_ids": position, "use_cache": True}
                parts.append(compiled(ids[:, step : step + 1], **options).logits)
        assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-5)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

    def test_assisted_decoding_is_refused_in_words(self) -> None:
        model, assistant = built(VARIANTS["hyena"]), built(VARIANTS["hyena_no_short_conv"])
        with pytest.raises((ValueError, RuntimeError), match="stateful|rolled back|[Aa]ssisted"):
            model.generate(tokens(batch=1, time=6), assistant_model=assistant, max_new_tokens=10, do_sample=False)

    def test_an_even_number_of_features_is_a_contradiction(self) -> None:
        with pytest.raises(CompatibilityError, match=f"{HYENA}.filter_emb") as caught:
            es.validate_v2(changed(hyena_spec(), {f"{HYENA}.filter_emb": 8}))
        assert "9" in caught.value.diagnostics[0].fix.render(str)

    def test_it_keeps_neither_keys_and_values_nor_a_recurrent_state(self) -> None:
        assert get_registry().get("mixer", "hyena").state == ()
        for word in ("kv_cache", "ssm_state"):
            es.validate_v2(changed(hyena_spec(), {f"layer_templates.decoder.state.{word}": False}))
            with pytest.raises(CompatibilityError):
                es.validate_v2(changed(hyena_spec(), {f"layer_templates.decoder.state.{word}": True}))
