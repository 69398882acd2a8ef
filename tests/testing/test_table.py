"""How claims become tests, what rests on a broken one, and what the report says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from eulerstack.testing import CLAIMS, PACKAGE_CLAIMS, Example, conformance
from eulerstack.testing.claims import PROPERTY, Package, verdict
from eulerstack.testing.plugin import pytest_terminal_summary
from eulerstack.testing.schema_words import other_values
from eulerstack.testing.specs import changed, split_path, tiny_spec
from eulerstack.testing.table import ask

NOBODY = Package("eulerstack-nobody", (Example("mixer", "vendor.nobody.mixer"),))


def test_every_claim_rests_on_claims_that_come_before_it() -> None:
    for table in (CLAIMS, PACKAGE_CLAIMS):
        names = list(table)
        assert all(names.index(other) < names.index(name) for name, claim in table.items() for other in claim.rests_on)


def test_there_is_a_test_for_each_claim_about_the_package_and_each_example() -> None:
    (mark,) = conformance("Eulerstack_Nobody", *NOBODY.examples).pytestmark  # type: ignore[attr-defined]
    ids = [case.id for case in mark.args[1]]
    assert ids == [
        *(f"eulerstack-nobody-{name}" for name in PACKAGE_CLAIMS),
        *(f"vendor.nobody.mixer-{name}" for name in CLAIMS),
    ]


def test_two_examples_of_one_name_need_labels() -> None:
    first, second = Example("ffn", "mlp"), Example("ffn", "mlp", {"bias": True})
    with pytest.raises(ValueError, match="mlp; give each a label"):
        conformance("eulerstack-mixers", first, second)
    with pytest.raises(ValueError, match="'mixr' is no kind"):
        Example("mixr", "attention")  # type: ignore[arg-type]


def test_what_rests_on_a_broken_claim_is_skipped_and_says_so() -> None:
    told: list[Any] = []
    with pytest.raises(AssertionError, match="no plugin of a distribution called eulerstack-nobody is installed"):
        ask(NOBODY, "installed", lambda name, value: told.append((name, value)))
    with pytest.raises(pytest.skip.Exception, match="it rests on installed, which does not hold"):
        ask(NOBODY, "complete", lambda name, value: told.append((name, value)))
    assert [(name, value[1:3]) for name, value in told] == [
        (PROPERTY, ["installed", "broken"]),
        (PROPERTY, ["complete", "not asked"]),
    ]
    assert verdict(NOBODY.examples[0], "padding").why == "builds"


def test_the_report_has_a_line_for_each_claim_once() -> None:
    properties = [(PROPERTY, ["vendor.acme.ema", "causality", "broken", "token 3 sees token 4"])]
    reports = [SimpleNamespace(user_properties=properties, when=when) for when in ("setup", "call", "teardown")]
    lines: list[str] = []
    reporter = SimpleNamespace(
        stats={"failed": reports}, write_sep=lambda *_: None, write_line=lambda line, **_: lines.append(line)
    )
    pytest_terminal_summary(reporter)
    assert lines == ["vendor.acme.ema: 0 of 1 claims hold", "  BROKEN          causality  token 3 sees token 4"]


@pytest.mark.parametrize(
    ("schema", "now", "others"),
    [
        ({"type": "boolean"}, True, [False]),
        ({"enum": ["a", "b", "c"]}, "b", ["a", "c"]),
        ({"type": "integer", "minimum": 1, "maximum": 2}, 1, [2]),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5, [0.25, 0.75]),
        ({"type": ["integer", "null"], "minimum": 4, "maximum": 5}, None, [5, 4]),
        ({"type": ["integer", "null"], "minimum": 4, "maximum": 4}, 4, [None]),
        ({"type": "string"}, "x", []),
    ],
)
def test_another_value_follows_from_the_schema(schema: dict[str, Any], now: Any, others: list[Any]) -> None:
    assert list(other_values(schema, now)) == others


def test_a_path_may_hold_a_key_with_dots() -> None:
    assert split_path("a.`vendor.acme.ema`.b") == ["a", "vendor.acme.ema", "b"]
    assert changed(tiny_spec(), {"`vendor.acme.form`.rank": 3})["vendor.acme.form"] == {"rank": 3}
