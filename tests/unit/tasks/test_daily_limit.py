from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from sdlora.core.schedule import ScheduleConfig
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, new_row
from tasks.waiting import daily_limit
from tasks.waiting.daily_limit import DailyLimitError, daily_limit_reached, stopping_at_daily_limit
from tests.waiting import PATIENCE_SECONDS, pass_midnight


@pytest.fixture
def home(tmp_path):
    """A state folder in which a run of the style has been training for an hour, or since midnight."""
    with ImageStore.open(tmp_path) as store, store.write() as session:
        row = new_row(Request("ink"), ProcessIdentity("m", 1, "s"), token="t")
        row.state, row.taken_at = "running", datetime.now(UTC) - timedelta(hours=1)
        session.add(row)
    return tmp_path


def asked(monkeypatch, who):
    monkeypatch.setattr(daily_limit, "asked_by", lambda: who)


def schedule_with(home, seconds_left):
    """A limit that is reached in so many seconds, also shortly after midnight."""
    trained = timedelta(hours=24) - daily_limit.time_left(ScheduleConfig(max_hours_a_day=24), "ink", home)
    return ScheduleConfig(max_hours_a_day=(trained + timedelta(seconds=seconds_left)) / timedelta(hours=1))


@pytest.fixture(autouse=True)
def _one_day() -> None:
    pass_midnight()


def test_the_clocks_run_is_refused_when_the_hours_are_used_up_and_a_persons_is_not(home, monkeypatch):
    schedule = schedule_with(home, 0.001)
    time.sleep(0.01)
    asked(monkeypatch, "clock")
    assert "schedule.max_hours_a_day" in daily_limit_reached(schedule, "ink", home)
    assert daily_limit_reached(schedule, "oil", home) is None
    assert daily_limit_reached(ScheduleConfig(), "ink", home) is None
    asked(monkeypatch, "person")
    assert daily_limit_reached(schedule, "ink", home) is None


def test_a_training_is_stopped_as_by_ctrl_c_and_ends_with_the_limits_error(home, monkeypatch):
    asked(monkeypatch, "trigger")
    saved = []

    def train():
        try:
            time.sleep(PATIENCE_SECONDS)
        except KeyboardInterrupt:
            saved.append("checkpoint")
            raise

    monkeypatch.setattr(daily_limit, "_SHORTEST_WAIT_SECONDS", 0.05)
    schedule = schedule_with(home, 3)  # enough for the training to begin before, on a busy machine too
    with (
        pytest.raises(DailyLimitError, match=r"schedule\.max_hours_a_day"),
        stopping_at_daily_limit(schedule, "ink", home),
    ):
        train()
    assert saved


def test_a_training_that_ends_before_the_limit_is_left_alone(home, monkeypatch):
    asked(monkeypatch, "clock")
    with stopping_at_daily_limit(schedule_with(home, 60), "ink", home):
        (timer,) = (thread for thread in threading.enumerate() if thread.name == "daily limit")
    timer.join(PATIENCE_SECONDS)
    assert not timer.is_alive() and not timer.is_reached  # no signal arrives any more


def test_ctrl_c_before_the_limit_stays_ctrl_c(home, monkeypatch):
    asked(monkeypatch, "clock")
    with pytest.raises(KeyboardInterrupt), stopping_at_daily_limit(schedule_with(home, 600), "ink", home):
        raise KeyboardInterrupt
