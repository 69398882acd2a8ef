"""Evaluates `let` and puts the value of every `${…}` in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eulerstack.dsl.paths import Path, dotted, is_reserved, key_text, show
from eulerstack.dsl.suggest import MANY
from eulerstack.errors import Collector, Location, msg

if TYPE_CHECKING:
    from fractions import Fraction

    from eulerstack.dsl.expressions import Expression, ExpressionError

OffsetLocator = Callable[[Path, int], "Location | None"]
_LET_SEE = "reference/errors.md#let"
_word = re.compile(r"[A-Za-z_][\w.]*")
_arithmetic = re.compile(r"[\w\s.+*/()-]{1,60}\Z").match


def resolve(raw: Mapping[str, Any], problems: Collector, locate: OffsetLocator) -> dict[str, Any]:
    """A copy of the spec's data without expressions; what can't be evaluated is recorded, and stays as it was.

    `locate` gives the place of a character of the text value at a path.
    """
    return _Resolver(problems, locate).run(raw)


class _Resolver:
    def __init__(self, problems: Collector, locate: OffsetLocator):
        self._problems = problems
        self._locate = locate
        self._values: dict[str, Fraction] = {}
        self._known: Mapping[str, Any] = {}

    def run(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        let = raw.get("let")
        data: dict[str, Any] = {}
        if isinstance(let, Mapping):
            self._known = let
            data["let"] = self._let(let)
        elif "let" in raw:
            data["let"] = let
            self._problems.add(
                "let",
                msg("let must be a mapping of names to numbers"),
                msg("Type 'let:' and below it, indented, lines such as 'width: 64'"),
                _LET_SEE,
            )
        return {key: data["let"] if key == "let" else self._value(value, (key,), key) for key, value in raw.items()}

    def _let(self, let: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of `let`, whatever the order of its lines; names that failed are left out of `_values`."""
        waiting: dict[str, Expression] = {}
        for name, value in let.items():
            parsed = self._let_value(name, value)
            if parsed is not None:
                waiting[name] = parsed
        for name in _in_order(waiting, self._cycle):
            self._evaluate(waiting[name], let[name], ("let", name), name)
        if not self._values:
            return dict(let)
        from eulerstack.dsl.expressions import as_number

        numbers = {name: as_number(value) for name, value in self._values.items()}
        return {name: numbers.get(name, value) if isinstance(value, str) else value for name, value in let.items()}

    def _let_value(self, name: str, value: Any) -> Expression | None:
        """Takes a number into `_values`, returns an expression to be evaluated, records anything else."""
        from eulerstack.dsl.expressions import ExpressionError, as_fraction, name_matches, parse_expression

        path = ("let", name)
        if not name_matches(name):
            self._problems.add(
                dotted(path),
                msg("{name} can't be a name of let", name=key_text(name)),
                msg("Use letters, digits and _, and begin with a letter"),
                _LET_SEE,
            )
        if isinstance(value, str):
            body = expression_body(value)
            if body is None:
                fix = msg("Type a number, or an expression such as {expression}", expression=_as_expression(value))
                what = msg("a value of let must be a number, not the text {value}", value=show(value))
                self._problems.add(dotted(path), what, fix, _LET_SEE)
                return None
            try:
                return parse_expression(body, self._suggestions())
            except ExpressionError as error:
                self._add(path, value, error)
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            self._values[name] = as_fraction(value)
            return None
        what = msg("a value of let must be a number, not {value}", value=show(value))
        self._problems.add(
            dotted(path), what, msg("Type a number, for example {name}: 64", name=key_text(name)), _LET_SEE
        )
        return None

    def _evaluate(self, expression: Expression, source: str, path: Path, name: str | None = None) -> Any:
        """The expression's value as a number; None when it has none, which has then been recorded."""
        from eulerstack.dsl.expressions import ExpressionError, as_number, unknown_name

        for used, offset in expression.names():
            if used not in self._known:
                self._add(path, source, unknown_name(used, offset, self._suggestions()))
                return None
            if used not in self._values:
                return None
        try:
            value = expression.evaluate(self._values)
        except ExpressionError as error:
            self._add(path, source, error)
            return None
        if name is not None:
            self._values[name] = value
        return as_number(value)

    def _cycle(self, names: list[str]) -> None:
        first = names[0]
        self._problems.add(
            dotted(("let", first)),
            msg("let.{name} is defined by itself: {cycle}", name=first, cycle=" → ".join([*names, first])),
            msg("Give one of these names a number"),
            "reference/errors.md#let-cycle",
        )

    def _value(self, value: Any, path: Path, key: str = "", reserved: bool = False) -> Any:
        if isinstance(value, str):
            return self._text(value, path, reserved) if "${" in value else value
        reserved = reserved or is_reserved(key)
        if isinstance(value, dict):
            return {below: self._value(item, (*path, below), below, reserved) for below, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, (*path, index), "", reserved) for index, item in enumerate(value)]
        return value

    def _text(self, value: str, path: Path, reserved: bool) -> Any:
        from eulerstack.dsl.expressions import ExpressionError, parse_expression

        body = expression_body(value)
        if body is None:
            if not reserved:
                what = msg("an expression must be the whole value, not a part of a text")
                fix = msg("Write the text out; an expression stands for a number only")
                self._problems.add(dotted(path), what, fix, "reference/errors.md#expression")
            return value
        try:
            result = self._evaluate(parse_expression(body, self._suggestions()), value, path)
        except ExpressionError as error:
            self._add(path, value, error)
            return value
        return value if result is None else result

    def _suggestions(self) -> Collection[str]:
        """The names to suggest: none once there are so many problems that nobody reads on."""
        return self._known if len(self._problems.diagnostics) < MANY else ()

    def _add(self, path: Path, source: str, error: ExpressionError) -> None:
        offset = source.index("${") + 2 + error.offset
        self._problems.add(dotted(path), error.what, error.fix, error.see, self._locate(path, offset))


def expression_body(text: str) -> str | None:
    """What stands between `${` and `}` when they enclose the whole text; None otherwise."""
    stripped = text.strip()
    whole = stripped.startswith("${") and stripped.find("}") == len(stripped) - 1
    return stripped[2:-1] if whole and stripped.find("${", 2) < 0 else None


def _as_expression(text: str) -> str:
    """A text that was probably meant as arithmetic, as it should be typed."""
    words = _word.sub(lambda found: found.group() if found.group().startswith("let.") else f"let.{found.group()}", text)
    return f"${{{words.strip()[:60]}}}" if _arithmetic(text) else "${let.a * 2}"


def _in_order(waiting: Mapping[str, Expression], on_cycle: Callable[[list[str]], None]) -> Iterator[str]:
    """The names so that each comes after those it needs; a cycle is reported once, and its names are left out."""
    state: dict[str, int] = {}
    for start in waiting:
        if start in state:
            continue
        trail: list[tuple[str, Iterator[tuple[str, int]]]] = [(start, iter(waiting[start].names()))]
        state[start] = 1
        while trail:
            name, needs = trail[-1]
            need = next((used for used, _ in needs if used in waiting and state.get(used) != 2), None)
            if need is None:
                state[name] = 2
                trail.pop()
                yield name
            elif state.get(need) == 1:
                names = [each for each, _ in trail]
                on_cycle(names[names.index(need) :])
                for each in names:
                    state[each] = 2
                trail.clear()
            else:
                state[need] = 1
                trail.append((need, iter(waiting[need].names())))
