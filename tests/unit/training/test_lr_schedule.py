from __future__ import annotations

import pytest

from sdlora.training.learning.lr_schedule import lr_schedule


def test_the_rate_warms_up_and_falls_as_worked_by_hand():
    # See tests/golden/README.md.
    expected = [0.5, 1.0, 1.0, 0.96194, 0.85355, 0.69134, 0.5, 0.30866, 0.14645, 0.03806]
    assert [lr_schedule(step, 10, 2) for step in range(10)] == pytest.approx(expected, abs=1e-5)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert lr_schedule(0, 5, 0) == 1.0
    assert lr_schedule(0, 1, 1) == 1.0


def test_the_other_schedules_fall_in_a_line_or_stay():
    assert [lr_schedule(step, 6, 2, "linear") for step in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [lr_schedule(step, 6, 2, "constant") for step in range(6)] == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
