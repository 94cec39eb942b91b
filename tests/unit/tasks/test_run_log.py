"""How often a training speaks in the log of its run."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from tasks import run_log
from tasks.run_log import TrainingLog


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, as the log sees them."""
    passed = [0.0]
    monkeypatch.setattr(run_log, "time", SimpleNamespace(monotonic=lambda: passed[0]))  # of the log alone
    return passed


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_each_tenth_of_the_steps_is_told_with_the_time_left(clock, caplog):
    caplog.set_level(logging.INFO)
    log = TrainingLog(100)
    for step in range(1, 101):
        clock[0] += 2
        log.report(step, {"loss": 1 / step})
    assert len(lines(caplog)) == 10
    assert lines(caplog)[0] == "step 10 of 100, loss 0.1, 3:00 left"
    assert lines(caplog)[-1] == "step 100 of 100, loss 0.01"


def test_slow_steps_are_told_every_half_minute(clock, caplog):
    caplog.set_level(logging.INFO)
    log = TrainingLog(100_000)
    for step in range(1, 62):
        clock[0] += 1
        log.report(step, {"loss": 0.5})
    assert lines(caplog) == [
        "step 31 of 100000, loss 0.5, 27:46:09 left",
        "step 61 of 100000, loss 0.5, 27:45:39 left",
    ]


def test_the_curve_that_a_resumed_training_repeats_is_no_news(clock, caplog):
    caplog.set_level(logging.INFO)
    log = TrainingLog(100)
    for step in range(1, 91):
        log.report(step, {"loss": 0.5})
    assert lines(caplog) == []
    clock[0] += 5
    log.report(100, {"loss": 0.25})
    assert lines(caplog) == ["step 100 of 100, loss 0.25"]


def test_what_came_before_the_first_point_does_not_count_as_training(clock, caplog):
    caplog.set_level(logging.INFO)
    log = TrainingLog(100)
    clock[0] += 600  # images are encoded
    log.report(0, {"validation_loss": 0.75})
    clock[0] += 20
    log.report(10, {"loss": 0.5})
    assert lines(caplog) == ["step 0 of 100, validation loss 0.75", "step 10 of 100, loss 0.5, 3:00 left"]


def test_a_training_of_one_step_is_told(clock, caplog):
    caplog.set_level(logging.INFO)
    TrainingLog(1).report(1, {"loss": 0.5})
    assert lines(caplog) == ["step 1 of 1, loss 0.5"]
