"""Reserved keys go out of a spec and back to where they were."""

import pytest

from eulerstack.dsl.paths import is_reserved
from eulerstack.ir.reserved import put_back, take_out


@pytest.mark.parametrize(
    ("key", "reserved"),
    [
        ("experimental.x", True),
        ("future.x.y", True),
        ("vendor.acme.x", True),
        ("vendor.acme", False),
        ("experimental", False),
        ("experimental.", False),
        ("my.experimental.x", False),
    ],
)
def test_reserved_keys_are_dotted_and_begin_with_a_namespace(key: str, reserved: bool) -> None:
    assert is_reserved(key) is reserved


def test_what_was_taken_out_goes_back_to_its_place() -> None:
    spec = {
        "future.a": {"experimental.inner": 1},
        "model": {"d_model": 3, "vendor.acme.b": [1]},
        "layer_templates": {"a.b": {"mixer": {"experimental.c": None}}, "a": {"mixer": {"future.d": 2}}},
    }
    kept, reserved = take_out(spec)
    assert kept == {"model": {"d_model": 3}, "layer_templates": {"a.b": {"mixer": {}}, "a": {"mixer": {}}}}
    for path, value in reserved.items():
        put_back(kept, path, value)
    assert kept == spec


def test_what_stood_in_an_entry_of_a_list_goes_back_there() -> None:
    spec = {"tissue": {"columns": [{"name": "a"}, {"name": "b", "experimental.x": 1}]}, "phases": [{"future.y": 2}]}
    kept, reserved = take_out(spec)
    assert kept == {"tissue": {"columns": [{"name": "a"}, {"name": "b"}]}, "phases": [{}]}
    for path, value in reserved.items():
        put_back(kept, path, value)
    assert kept == spec


def test_the_block_of_a_third_partys_type_is_no_extension() -> None:
    mixer = {"type": "vendor.acme.gla", "vendor.acme.gla": {"width": 1, "experimental.x": 2}}
    kept, reserved = take_out({"mixer": mixer})
    assert kept == {"mixer": {"type": "vendor.acme.gla", "vendor.acme.gla": {"width": 1}}}
    assert reserved == {"mixer.vendor.acme.gla.experimental.x": 2}
    put_back(kept, *next(iter(reserved.items())))
    assert kept == {"mixer": mixer}


def test_mappings_that_are_gone_are_made_again() -> None:
    spec = {"layer_templates": {"a": {}}}
    put_back(spec, "layer_templates.a.state.future.x", 1)
    assert spec == {"layer_templates": {"a": {"state": {"future.x": 1}}}}
