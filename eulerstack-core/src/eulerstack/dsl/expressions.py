"""Arithmetic on `let` names: + - * / // ( ) and unary minus on exact rationals, nothing else.

An expression is tokenised, put into postfix order by recursive descent, and evaluated on exact fractions, so that
`1024 / 3 * 3` is the integer 1024; a result without a fractional part is an int, any other a float. Length, nesting and
magnitude are bounded: no text that a spec can hold takes noticeable time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eulerstack.dsl.limits import (
    MAX_EXPRESSION_CHARACTERS,
    MAX_NUMBER,
    MAX_NUMBER_CHARACTERS,
    MAX_PARENTHESES,
)
from eulerstack.dsl.paths import show
from eulerstack.dsl.suggest import nearest
from eulerstack.errors import Message, msg

SEE = "reference/errors.md#expression"
_MAX_EXPONENT = 300
_MAX_DENOMINATOR_BITS = 512
_FIX_GRAMMAR = msg("Use only numbers, let.<name>, + - * / // and parentheses")
_token = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)"
    r"|(?P<operator>//|\*\*|[-+*/()]))"
)
name_matches = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z").match


class ExpressionError(Exception):
    """Why an expression has no value; `offset` counts characters from the expression's beginning."""

    def __init__(self, offset: int, what: Message, fix: Message, see: str = SEE):
        super().__init__(offset, what, fix)
        self.offset, self.what, self.fix, self.see = offset, what, fix, see


@dataclass(frozen=True)
class Step:
    """One step of a postfix program: pushes a number, pushes a `let` name's value, or applies an operator."""

    kind: str
    value: Any
    offset: int


@dataclass(frozen=True)
class Expression:
    """A parsed expression, ready to be evaluated."""

    steps: tuple[Step, ...]

    def names(self) -> list[tuple[str, int]]:
        """The `let` names that it needs, each with its offset."""
        return [(step.value, step.offset) for step in self.steps if step.kind == "name"]

    def evaluate(self, let: Mapping[str, Fraction]) -> Fraction:
        """Its value; raises ExpressionError for division by zero and for what is too large."""
        stack: list[Fraction] = []
        for step in self.steps:
            if step.kind == "number":
                result = step.value
            elif step.kind == "name":
                result = let[step.value]
            elif step.kind == "negate":
                result = -stack.pop()
            else:
                right, left = stack.pop(), stack.pop()
                result = _apply(step, left, right)
            stack.append(_bounded(result, step.offset))
        return stack.pop()


def parse_expression(text: str, known: Collection[str] = ()) -> Expression:
    """Parses what stands between `${` and `}`; `known` names are suggested for others. Raises ExpressionError."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ExpressionError(
            0,
            msg("the expression has {count} characters; {limit} is the limit", count=len(text),
                limit=MAX_EXPRESSION_CHARACTERS),
            msg("Split it into names under let"),
        )  # fmt: skip
    return Expression(tuple(_Parser(text, known).parse()))


def as_fraction(number: int | float) -> Fraction:
    """The decimal that a person typed, exactly: 0.1 is one tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def as_number(value: Fraction) -> int | float:
    """The int that it is, else the nearest float."""
    return value.numerator if value.denominator == 1 else float(value)


def _apply(step: Step, left: Fraction, right: Fraction) -> Fraction:
    if step.value == "+":
        return left + right
    if step.value == "-":
        return left - right
    if step.value == "*":
        return left * right
    if right == 0:
        raise ExpressionError(
            step.offset, msg("division by zero"), msg("Divide by a number that isn't 0"), "reference/errors.md#division"
        )
    return left / right if step.value == "/" else Fraction(left // right)


def _bounded(value: Fraction, offset: int) -> Fraction:
    if abs(value) > MAX_NUMBER:
        raise ExpressionError(
            offset,
            msg("the result is larger than {limit}", limit=MAX_NUMBER),
            msg("Keep every intermediate result below {limit}", limit=MAX_NUMBER),
            "reference/errors.md#number-size",
        )
    if value.denominator.bit_length() > _MAX_DENOMINATOR_BITS:
        return Fraction(repr(float(value)))
    return value


class _Parser:
    """Recursive descent over the tokens; writes postfix steps."""

    def __init__(self, text: str, known: Collection[str]):
        self._text = text
        self._known = known
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0
        self._steps: list[Step] = []

    def parse(self) -> list[Step]:
        if not self._tokens:
            raise ExpressionError(0, msg("the expression is empty"), msg("Type a number or let.<name> inside it"))
        self._sum()
        if self._next < len(self._tokens):
            kind, text, offset = self._tokens[self._next]
            if kind == "operator" and text == ")":
                raise ExpressionError(offset, msg("this parenthesis was never opened"), msg("Delete the ')'"))
            raise self._unexpected(msg("an operator is missing before {token}", token=_shown(text)))
        return self._steps

    def _unexpected(self, what: Message) -> ExpressionError:
        """The error for a token that does not belong where it stands; `what` describes one that has a meaning."""
        kind, text, offset = self._tokens[self._next]
        if kind == "unknown":
            what = msg("{character} has no meaning in an expression", character=show(text))
        return ExpressionError(offset, what, _FIX_GRAMMAR)

    def _peek(self) -> str:
        if self._next == len(self._tokens):
            return ""
        kind, text, _ = self._tokens[self._next]
        return text if kind == "operator" else ""

    def _sum(self) -> None:
        self._product()
        while (operator := self._peek()) and operator in "+-":
            self._binary(operator, self._product)

    def _product(self) -> None:
        self._unary()
        while (operator := self._peek()) and operator in ("*", "/", "//", "**"):
            if operator == "**":
                raise ExpressionError(
                    self._tokens[self._next][2],
                    msg("there is no power operator"),
                    msg("Write the product out, for example let.a * let.a"),
                )
            self._binary(operator, self._unary)

    def _binary(self, operator: str, operand: Callable[[], None]) -> None:
        offset = self._tokens[self._next][2]
        self._next += 1
        operand()
        self._steps.append(Step("operator", operator, offset))

    def _unary(self) -> None:
        negative, offset = False, 0
        while self._peek() == "-":
            negative, offset = not negative, self._tokens[self._next][2]
            self._next += 1
        self._primary()
        if negative:
            self._steps.append(Step("negate", None, offset))

    def _primary(self) -> None:
        if self._next == len(self._tokens):
            raise ExpressionError(
                len(self._text.rstrip()), msg("the expression ends where a number should stand"), _FIX_GRAMMAR
            )
        kind, text, offset = self._tokens[self._next]
        if kind == "unknown" or (kind == "operator" and text != "("):
            raise self._unexpected(msg("a number or let.<name> should stand before {token}", token=_shown(text)))
        self._next += 1
        if kind == "number":
            self._steps.append(Step("number", _number(text, offset), offset))
        elif kind == "word":
            self._steps.append(Step("name", self._name(text, offset), offset))
        else:
            self._parenthesis(offset)

    def _name(self, word: str, offset: int) -> str:
        prefix, _, name = word.partition(".")
        if prefix == "let" and name and "." not in name and name_matches(name):
            return name
        if self._peek() == "(":
            raise ExpressionError(
                offset, msg("there are no functions; {name} can't be called", name=_shown(word)), _FIX_GRAMMAR
            )
        near = nearest(word, self._known)
        if near:
            fix = msg("Type let.{near}", near=near)
        elif "." not in word and word != "let":
            fix = msg("Type let.{name}, and give {name} a value under let", name=word[:MAX_NUMBER_CHARACTERS])
        else:
            fix = _FIX_GRAMMAR
        raise ExpressionError(offset, msg("{name} is not a name of let", name=_shown(word)), fix)

    def _parenthesis(self, offset: int) -> None:
        self._depth += 1
        if self._depth > MAX_PARENTHESES:
            what = msg("parentheses are nested more than {limit} deep", limit=MAX_PARENTHESES)
            raise ExpressionError(offset, what, msg("Split it into names under let"))
        self._sum()
        if self._peek() != ")":
            if self._next < len(self._tokens):
                text = self._tokens[self._next][1]
                raise self._unexpected(msg("an operator or ')' is missing before {token}", token=_shown(text)))
            raise ExpressionError(offset, msg("this parenthesis is never closed"), msg("Type a ')'"))
        self._next += 1
        self._depth -= 1


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, offset) of every token: a number, a word, an operator, or one unknown character."""
    position, end = 0, len(text.rstrip())
    while position < end:
        token = _token.match(text, position)
        if token is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            yield "unknown", text[position], position
            return
        kind = str(token.lastgroup)
        yield kind, token.group(kind), token.start(kind)
        position = token.end()


def _number(text: str, offset: int) -> Fraction:
    exponent = re.search(r"[eE]([-+]?[0-9]+)", text)
    if len(text) > MAX_NUMBER_CHARACTERS or (exponent and abs(int(exponent.group(1))) > _MAX_EXPONENT):
        raise ExpressionError(
            offset,
            msg("the number {number} is too long or too large", number=text[:MAX_NUMBER_CHARACTERS]),
            msg("Keep every intermediate result below {limit}", limit=MAX_NUMBER),
            "reference/errors.md#number-size",
        )
    return Fraction(text if not text.endswith(".") else text + "0")


def _shown(text: str) -> str:
    return text if len(text) <= MAX_NUMBER_CHARACTERS else text[:MAX_NUMBER_CHARACTERS] + "…"


def unknown_name(name: str, offset: int, known: Collection[str]) -> ExpressionError:
    """The error for a `let` name that `let` doesn't hold."""
    near = nearest(name, known)
    if near:
        fix = msg("Type let.{near}", near=near)
    else:
        fix = msg("Give {name} a value under let", name=name[:MAX_NUMBER_CHARACTERS])
    return ExpressionError(
        offset, msg("let holds no name {name}", name=_shown(name)), fix, "reference/errors.md#unknown-name"
    )
