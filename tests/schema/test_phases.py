"""`execution_modes` and `transition`: what contradicts what, how they are completed, printed, and counted."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("eulerstack_mixers")

import eulerstack as es  # noqa: E402
from eulerstack.dsl.source import parse_text  # noqa: E402
from eulerstack.errors import CompatibilityError, ValidationError  # noqa: E402
from eulerstack.hf.phase_lengths import longest_context, total_budget  # noqa: E402
from eulerstack.ir.printer import from_data, print_ir, to_data  # noqa: E402
from eulerstack.schema import report  # noqa: E402
from tests.ir.strategies import minimal  # noqa: E402

THINK = {"name": "think", "max_tokens": 40, "loss_weight": 0, "visible_to_user": False}
ANSWER = {"name": "answer", "max_tokens": 20}
WHY = {"name": "why", "max_tokens": 3, "per_token_rationale": True}
BY_TOKEN = {"type": "special_token", "token": "<think_end>"}


def phases(*modes: dict[str, Any], **transition: Any) -> dict[str, Any]:
    return minimal(execution_modes=list(modes), **({"transition": transition} if transition else {}))


@pytest.mark.parametrize(
    ("spec", "path", "what", "fix"),
    [
        (phases(ANSWER, {**ANSWER}), "execution_modes[1].name", "two phases called", "another name"),
        (phases(THINK, {**ANSWER, "kv_share": False}), "execution_modes[1].kv_share", "no phase follows", "Delete"),
        (phases(ANSWER, WHY), "execution_modes[1].per_token_rationale", "a phase after it", "false"),
        (
            phases(WHY, {**WHY, "name": "how"}, ANSWER),
            "execution_modes[0].per_token_rationale",
            "which is none itself",
            "after ",
        ),
        (phases({**ANSWER, "visible_to_user": False}), "execution_modes", "every phase is hidden", "true"),
        (minimal(transition={"type": "budget_exhausted"}), "transition", "no phases", "delete transition"),
        (phases(THINK, ANSWER, type="special_token"), "transition", "needs the token", "token: <think_end>"),
        (phases(THINK, ANSWER, token="<x>"), "transition.token", "special_token", "delete token"),
        (phases(ANSWER, **BY_TOKEN), "transition.type", "one phase", "delete transition"),
    ],
)
def test_contradictions_are_refused_where_they_stand(spec: dict[str, Any], path: str, what: str, fix: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        es.validate_v2(spec)
    (problem,) = caught.value.diagnostics
    assert problem.path == path
    assert what in problem.what.render(str) and fix in problem.fix.render(str)


@pytest.mark.parametrize(
    "modes",
    [
        [],
        [{"name": "answer"}],
        [{"max_tokens": 3}],
        [{**ANSWER, "max_tokens": 0}],
        [{**ANSWER, "loss_weight": -0.1}],
        [{**ANSWER, "visible": True}],
    ],
)
def test_values_out_of_range_are_refused(modes: list[Any]) -> None:
    with pytest.raises(ValidationError):
        es.validate_v2(minimal(execution_modes=modes))


def test_defaults_are_filled_in_and_everything_comes_back() -> None:
    ir = es.normalize_to_ir(phases(THINK, ANSWER))
    assert dict(ir.execution_modes[1]) == {
        "name": "answer",
        "max_tokens": 20,
        "kv_share": True,
        "loss_weight": 1.0,
        "visible_to_user": True,
        "per_token_rationale": False,
    }
    assert dict(ir.transition) == {"type": "budget_exhausted", "token": None}
    for each in (ir, es.normalize_to_ir(phases(WHY, ANSWER, **BY_TOKEN)), es.normalize_to_ir(minimal())):
        assert from_data(to_data(each)) == each
        assert es.normalize_to_ir(parse_text(print_ir(each), "printed.yml")) == each


def test_a_spec_without_phases_says_nothing_of_them() -> None:
    ir = es.normalize_to_ir(minimal())
    assert (ir.execution_modes, dict(ir.transition)) == ((), {})
    assert not {"execution_modes", "transition"} & set(to_data(ir)) and "execution_modes" not in print_ir(ir)


def filled(*modes: dict[str, Any]) -> Any:
    return es.normalize_to_ir(phases(*modes)).execution_modes


@pytest.mark.parametrize(
    ("modes", "total", "by_budget", "by_token"),
    [
        ((THINK, ANSWER), 60, 60, 60),
        (({**THINK, "kv_share": False}, ANSWER), 60, 40, 40),
        (({**ANSWER, "kv_share": False}, {**THINK, "visible_to_user": True}), 60, 40, 41),
        ((WHY, ANSWER), 80, 80, 80),
        (({**WHY, "kv_share": False}, ANSWER), 80, 23, 23),
        ((THINK, {**WHY, "kv_share": False}, ANSWER, {**ANSWER, "name": "end"}), 140, 80, 80),
        ((WHY, {**ANSWER, "kv_share": False}, {**ANSWER, "name": "end"}), 100, 80, 81),
    ],
)
def test_the_longest_context_is_what_phases_hold_at_once(
    modes: tuple[Any, ...], total: int, by_budget: int, by_token: int
) -> None:
    assert total_budget(filled(*modes)) == total
    assert longest_context(filled(*modes), has_token=False) == by_budget
    assert longest_context(filled(*modes), has_token=True) == by_token


def test_budgets_beyond_the_longest_context_are_found() -> None:
    def found(*modes: dict[str, Any]) -> list[str]:
        return [each.what.render(str) for each in report(es.normalize_to_ir(phases(*modes))) if each.rule == "phases"]

    assert found(THINK, ANSWER) == []
    (what,) = found({**THINK, "max_tokens": 50}, ANSWER)
    assert "70 tokens" in what and "64" in what
    assert found({**THINK, "max_tokens": 50, "kv_share": False}, ANSWER) == []
