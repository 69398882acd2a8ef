"""When a loss counts as fallen, and what a report says of it."""

from __future__ import annotations

import json
import math
import random

from eulerstack.sanity.report import ExpertLoad, Report, falls


def report(losses: list[float]) -> Report:
    """A report of a run with these losses."""
    load = ExpertLoad("model.layers.0.ffn", 4, 1.5, (2,))
    return Report("m", 10, "cpu", 2, 8, tuple(losses), (1.0,) * len(losses), 4.0, ("a.b",), (load,), 99.0)


def test_noise_around_a_level_is_no_fall_and_a_slope_beyond_it_is() -> None:
    source = random.Random(0)
    level = [[10 + source.gauss(0, 0.1) for _ in range(50)] for _ in range(500)]
    assert sum(map(falls, level)) <= 5
    slope = [[loss - 0.02 * step for step, loss in enumerate(losses)] for losses in level]
    assert sum(map(falls, slope)) >= 495
    assert not any(falls([loss + 0.02 * step for step, loss in enumerate(losses)]) for losses in level)


def test_two_losses_show_nothing_and_a_straight_line_everything() -> None:
    assert not falls([2.0, 1.0])
    assert falls([3.0, 2.0, 1.0]) and not falls([1.0, 1.0, 1.0])


def test_a_loss_that_is_no_number_never_falls_and_json_stays_json() -> None:
    broken = report([3.0, 2.0, math.nan, 1.0])
    assert not broken.falls and not broken.is_finite
    data = json.loads(json.dumps(broken.as_dict(), allow_nan=False))
    assert data["losses"] == [3.0, 2.0, None, 1.0] and data["finite"] is False
    assert report([3.0, 2.0, 1.0, 0.5]).falls
