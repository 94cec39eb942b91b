"""How often a training speaks in the log of its run."""

from __future__ import annotations

import logging

import pytest

from tasks import run_log
from tasks.run_log import TrainingLog


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, as the log sees them."""
    passed = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: passed[0])
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
    for step in range(1, 61):
        clock[0] += 1
        log.report(step, {"loss": 0.5})
    assert lines(caplog) == [
        "step 30 of 100000, loss 0.5, 27:46:10 left",
        "step 60 of 100000, loss 0.5, 27:45:40 left",
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
