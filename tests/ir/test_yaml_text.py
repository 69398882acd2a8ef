"""Canonical text reads back as the data it was made from, by YAML 1.1 and 1.2 alike."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eulerstack.ir.yaml_text import scalar, yaml_text

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda text: text.isascii() or all(not 0xD800 <= ord(c) <= 0xDFFF for c in text))
)
keys = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@given(st.dictionaries(keys, values, min_size=1, max_size=4))
def test_any_data_reads_back_exactly(data: dict[str, object]) -> None:
    assert yaml.safe_load(yaml_text(data)) == data


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (1e-05, "1.0e-05"),
        (1e16, "1.0e+16"),
        (True, "true"),
        (None, "null"),
        ("rope", "rope"),
        ("no", '"no"'),
    ],
)
def test_scalars_have_one_form(value: object, text: str) -> None:
    assert scalar(value) == text


def test_long_lists_are_folded() -> None:
    text = yaml_text({"factors": [1.0] * 100})
    assert max(map(len, text.splitlines())) <= 110
    assert yaml.safe_load(text) == {"factors": [1.0] * 100}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        scalar(value)
