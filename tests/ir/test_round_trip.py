"""An IR survives printing, reading, JSON and back, whatever the spec."""

import json

import pytest
from hypothesis import HealthCheck, given, settings

from eulerstack.dsl.source import parse_text
from eulerstack.ir import from_data, normalize_to_ir, print_ir, to_data, to_spec
from tests.ir.strategies import Data, decoder, minimal, specs

UNHURRIED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(specs())
def test_the_printed_text_of_any_spec_is_a_valid_spec_with_the_same_ir(spec: Data) -> None:
    ir = normalize_to_ir(spec)
    text = print_ir(ir)
    again = normalize_to_ir(parse_text(text, "printed.yml"))
    assert again == ir
    assert print_ir(again) == text


@UNHURRIED
@given(specs())
def test_json_gives_the_same_ir_back_whatever_the_order_of_its_keys(spec: Data) -> None:
    ir = normalize_to_ir(spec)
    back = from_data(json.loads(json.dumps(to_data(ir), sort_keys=True, allow_nan=False)))
    assert back == ir
    assert print_ir(back) == print_ir(ir)
    assert to_data(back) == to_data(ir)


def test_one_and_one_point_zero_are_the_same_number() -> None:
    whole = minimal(model={"mlp_ratio": 2, "residual_multiplier": 1}, embedding={"rope_theta": 10000, "scale": 2})
    real = minimal(model={"mlp_ratio": 2.0, "residual_multiplier": 1.0}, embedding={"rope_theta": 1e4, "scale": 2.0})
    assert print_ir(normalize_to_ir(whole)) == print_ir(normalize_to_ir(real))


def test_the_order_of_words_in_a_spec_does_not_show() -> None:
    def reverse(data: object) -> object:
        if isinstance(data, dict):
            return {key: reverse(value) for key, value in reversed(data.items())}
        return data

    spec = minimal(embedding={"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}})
    backwards = reverse(spec)
    assert isinstance(backwards, dict)
    assert print_ir(normalize_to_ir(spec)) == print_ir(normalize_to_ir(backwards))


def test_equal_neighbours_in_the_schedule_are_one_entry() -> None:
    schedule = [{"template": "decoder"}, {"template": "decoder", "repeat": 2, "override": {}}]
    assert to_spec(normalize_to_ir(minimal(layer_schedule=schedule)))["layer_schedule"] == [
        {"template": "decoder", "repeat": 3}
    ]


def test_overrides_come_back_as_overrides_of_the_most_frequent_layer() -> None:
    window = {"attention": {"window": 8}}
    schedule = [{"template": "decoder", "override": window}, {"template": "decoder", "repeat": 2}]
    spec = to_spec(normalize_to_ir(minimal(layer_schedule=schedule)))
    assert list(spec["layer_templates"]) == ["decoder"]
    assert spec["layer_schedule"] == [
        {"template": "decoder", "repeat": 1, "override": window},
        {"template": "decoder", "repeat": 2},
    ]


def test_a_window_can_be_overridden_away() -> None:
    windowed = decoder(mixer={"type": "attention", "attention": {"window": 8}})
    schedule = [
        {"template": "decoder", "repeat": 2},
        {"template": "decoder", "override": {"attention": {"window": None}}},
    ]
    ir = normalize_to_ir(minimal(layer_templates={"decoder": windowed}, layer_schedule=schedule))
    assert [layer.mixer.params["window"] for layer in ir.layers] == [8, 8, None]
    assert normalize_to_ir(to_spec(ir)) == ir


def test_an_override_of_the_norms_type_survives() -> None:
    plain = decoder(norm={"type": "layernorm", "bias": False, "eps": 1e-3})
    schedule = [{"template": "decoder"}, {"template": "decoder", "override": {"norm": {"type": "rmsnorm"}}}]
    ir = normalize_to_ir(minimal(layer_templates={"decoder": plain}, layer_schedule=schedule))
    assert dict(ir.layers[1].norm.params) == {"eps": 1e-3, "zero_centered": False}
    assert normalize_to_ir(to_spec(ir)) == ir


def test_a_printed_template_need_not_be_one_of_the_layers() -> None:
    plain = decoder(norm={"type": "layernorm", "bias": False, "position": "post"})
    typed, placed = {"norm": {"type": "rmsnorm"}}, {"norm": {"position": "pre"}}
    schedule = [{"template": "decoder", "override": override} for override in (typed, placed, typed)]
    ir = normalize_to_ir(minimal(layer_templates={"decoder": plain}, layer_schedule=schedule))
    assert to_spec(ir)["layer_schedule"] == [{**entry, "repeat": 1} for entry in schedule]
    assert normalize_to_ir(to_spec(ir)) == ir


def test_layers_that_no_override_joins_get_templates_of_their_own() -> None:
    data = to_data(normalize_to_ir(minimal()))
    other = json.loads(json.dumps(data["blocks"][0]))
    other["mixer"]["params"]["qkv_bias"] = True
    data["blocks"].append(other)
    data["layers"] = [0, 1]
    spec = to_spec(from_data(data))
    assert list(spec["layer_templates"]) == ["decoder", "decoder-2"]
    biases = [layer.mixer.params["qkv_bias"] for layer in normalize_to_ir(spec).layers]
    assert biases == [False, True]


@pytest.mark.parametrize(
    "name", ["1e5", "010", "yes", "~", "null", "a: b", " padded ", "#", "한국어", "\u2028\x85\t", "0o7"]
)
def test_any_name_is_quoted_so_that_it_stays_a_string(name: str) -> None:
    ir = normalize_to_ir(minimal(model={"name": name}))
    assert normalize_to_ir(parse_text(print_ir(ir), "printed.yml")).model["name"] == name


@pytest.mark.parametrize("norm_eps", [1e-05, 1e-8, 0.1 + 0.2, 5e-324, 1e300])
def test_floats_keep_every_bit_and_show_a_point(norm_eps: float) -> None:
    text = print_ir(normalize_to_ir(minimal(model={"norm_eps": norm_eps})))
    line = next(line for line in text.splitlines() if "norm_eps" in line)
    assert float(line.split()[1]) == norm_eps
    assert "." in line


def test_a_hundred_thousand_layers_print_as_one_entry_in_no_time() -> None:
    ir = normalize_to_ir(minimal(layer_schedule=[{"template": "decoder", "repeat": 100_000}]))
    assert to_spec(ir)["layer_schedule"] == [{"template": "decoder", "repeat": 100_000}]
    assert from_data(to_data(ir)) == ir
