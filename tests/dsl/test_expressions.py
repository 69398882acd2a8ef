"""Arithmetic in specs: exact, ordered as in school, and bounded."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest

from eulerstack.dsl.expressions import ExpressionError, as_fraction, as_number, parse_expression
from eulerstack.dsl.source import parse_text
from eulerstack.errors import ValidationError


def result(text: str, **let: int | float) -> Any:
    """The value of an expression with these names."""
    return as_number(parse_expression(text).evaluate({name: as_fraction(value) for name, value in let.items()}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("10 - 4 - 3", 3), ("24 / 4 / 2", 3), ("-3 + 5", 2), ("2 * -3", -6),
        ("--3", 3), ("-(2 + 3)", -5), ("7 // 2", 3), ("-7 // 2", -4), ("7 / 2", 3.5), ("8 / 2", 4), ("7.5 // 2", 3),
        ("1024 / 3 * 3", 1024), ("0.1 + 0.2", 0.3), ("2.5 * 1024", 2560), ("1e-5 * 2", 2e-5), ("1.", 1), (".5 * 4", 2),
        ("  1\n+ 1 ", 2), ("1/3", 1 / 3), ("10000.0", 10000), ("3--2", 5), ("((((5))))", 5),
    ],
)  # fmt: skip
def test_results_are_exact_and_whole_where_they_can_be(text: str, value: float) -> None:
    got = result(text)
    assert got == value and type(got) is type(value)


def test_names_stand_for_what_was_typed() -> None:
    assert result("let.a * let.b_2", a=0.1, b_2=10) == 1


def test_random_expressions_agree_with_python() -> None:
    random.seed(0)
    for _ in range(300):
        text, program = _random(3)
        try:
            expected = eval(program, {"F": Fraction})
        except ZeroDivisionError:
            with pytest.raises(ExpressionError):
                result(text)
            continue
        assert result(text) == as_number(Fraction(expected)), text


def _random(depth: int) -> tuple[str, str]:
    """A random expression, and the same as a Python program on fractions."""
    if depth == 0 or random.random() < 0.2:
        number = str(random.randint(0, 9))
        return number, f"F({number})"
    left, right = _random(depth - 1), _random(depth - 1)
    operator = random.choice(["+", "-", "*", "/", "//"])
    if random.random() < 0.3:
        return f"-(({left[0]}) {operator} ({right[0]}))", f"-(({left[1]}) {operator} ({right[1]}))"
    return f"({left[0]}) {operator} ({right[0]})", f"(({left[1]}) {operator} ({right[1]}))"


def test_let_may_be_written_in_any_order() -> None:
    spec = parse_text("let:\n  c: ${let.b + 1}\n  b: ${let.a * 2}\n  a: 4\nx: ${let.c}\n", "m.yml")
    assert spec["let"] == {"c": 9, "b": 8, "a": 4}
    assert spec["x"] == 9


def test_expressions_stand_wherever_a_number_may() -> None:
    spec = parse_text('let: {a: 4}\nlist:\n  - ${let.a}\n  - {x: "${let.a / 8}"}\nplain: ${2 * 3}\n', "m.yml")
    assert spec["list"] == [4, {"x": 0.5}]
    assert spec["plain"] == 6


def test_a_fault_in_let_is_not_repeated_where_its_name_is_used() -> None:
    with pytest.raises(ValidationError) as error:
        parse_text("let: {a: '${1 / 0}', b: '${let.a}'}\nx: ${let.b}\ny: ${let.a}\n", "m.yml")
    assert [each.path for each in error.value.diagnostics] == ["let.a"]


def test_a_text_in_a_reserved_namespace_may_hold_a_dollar_sign() -> None:
    spec = parse_text("vendor.acme.x: {path: 'a/${HOME}/b', size: '${2 * 3}'}\n", "m.yml")
    assert spec["vendor.acme.x"] == {"path": "a/${HOME}/b", "size": 6}


def test_tiny_fractions_stay_cheap() -> None:
    assert result(" * ".join(["1e-20"] * 40)) == 0.0
