from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, new_row
from sdlora.store.training_hours import trained_today

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 30, 11, 0, tzinfo=UTC)  # 12:00 in Berlin
MIDNIGHT = datetime(2026, 11, 29, 23, 0, tzinfo=UTC)  # 0:00 in Berlin


@pytest.fixture
def store(tmp_path):
    with ImageStore.open(tmp_path) as store:
        yield store


def ticket(store, taken, ended=None, state="done", style="ink", what="retrain", heartbeat=NOON):
    with store.write() as session:
        row = new_row(Request(style, what), ProcessIdentity("m", 1, "s"), token="t")
        row.state, row.taken_at, row.ended_at, row.heartbeat_at = state, taken, ended, heartbeat
        session.add(row)


def hours(store, zone=BERLIN, now=NOON):
    with store.read() as session:
        return trained_today(session, "ink", now, zone) / timedelta(hours=1)


def test_runs_of_the_style_count_from_midnight_in_its_zone(store):
    hour = timedelta(hours=1)
    ticket(store, MIDNIGHT - 3 * hour, MIDNIGHT + hour)  # one hour of it is today
    ticket(store, NOON - 2 * hour, NOON - hour, state="failed")
    ticket(store, MIDNIGHT - 5 * hour, MIDNIGHT - 4 * hour)
    ticket(store, NOON - 2 * hour, NOON - hour, style="oil")
    ticket(store, NOON - 2 * hour, NOON - hour, what="compare")
    ticket(store, None, NOON, state="skipped")
    assert hours(store) == 2
    assert hours(store, UTC) == 1  # in UTC the day began an hour later


def test_a_running_run_counts_until_now_and_a_lost_one_until_its_last_sign_of_life(store):
    hour = timedelta(hours=1)
    ticket(store, NOON - hour, state="running", heartbeat=NOON - hour)
    assert hours(store) == 1
    ticket(store, NOON - 4 * hour, NOON, state="lost", heartbeat=NOON - 3.5 * hour)
    assert hours(store) == 1.5


def test_a_run_from_a_future_that_a_changed_clock_made_counts_nothing(store):
    ticket(store, NOON + timedelta(days=1), NOON + timedelta(days=2))
    assert hours(store) == 0
