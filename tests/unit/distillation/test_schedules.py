"""Unit tests of ``imlkd_brain.distillation.schedules``."""

import pytest

from imlkd_brain.distillation.schedules import SCHEDULES, remaining


@pytest.mark.parametrize(
    "schedule, half", [("constant", 1), ("linear", 0.5), ("cosine", 0.5)]
)
def test_what_is_left(schedule, half):
    assert schedule in SCHEDULES
    assert remaining(schedule, 0.0) == 1
    assert remaining(schedule, 0.5) == pytest.approx(half)
    end = 1 if schedule == "constant" else 0
    assert remaining(schedule, 1.0) == end == remaining(schedule, 7.0)
